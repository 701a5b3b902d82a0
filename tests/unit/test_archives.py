"""Archives are read member by member through an index; one bad member costs one member."""

from __future__ import annotations

import gzip
import io
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from pipeline.errors import ErrorCode, MediaError
from pipeline.media.archives import Archive
from pipeline.media.pictures import decode_picture
from tests.media import picture_bytes, read_index, truncated, write_tar, write_zip

MEMBERS = [
    ("a.png", picture_bytes(1)),
    ("a.json", b"{}"),
    ("b/c.jpg", picture_bytes(2, "JPEG")),
    ("a.png", picture_bytes(3)),
    ("._a.png", b"attributes"),
]


def write(path: Path, members: list[tuple[str, bytes]] = MEMBERS) -> Path:
    return write_zip(path, members) if path.suffix == ".zip" else write_tar(path, members)


def indices(archive: Archive) -> list[int]:
    return [read_index(decode_picture(archive.read(member), 10**6)) for member in archive.members()]


@pytest.mark.parametrize("name", ["x.tar", "x.zip"])
def test_members_by_ordinal_even_when_names_repeat(tmp_path: Path, name: str) -> None:
    archive = Archive(write(tmp_path / name))
    members = archive.members()
    assert [(member.ordinal, member.name) for member in members] == [(0, "a.png"), (2, "b/c.jpg"), (3, "a.png")]
    assert indices(archive) == [1, 2, 3]
    assert list(tmp_path.iterdir()) == [tmp_path / name]


def test_a_stored_zip_and_a_tar_gz(tmp_path: Path) -> None:
    assert indices(Archive(write_zip(tmp_path / "x.zip", MEMBERS, deflate=False))) == [1, 2, 3]
    assert indices(Archive(write_tar(tmp_path / "x.tar.gz", MEMBERS))) == [1, 2, 3]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.tar.gz", "x.zip"]


@pytest.mark.parametrize("name", ["x.tar", "x.tgz"])
def test_archives_joined_end_to_end_lose_nothing(tmp_path: Path, name: str) -> None:
    parts = [write_tar(tmp_path / f"{n}.tar", [(f"{n}.png", picture_bytes(n)), ("a.txt", b"x")]) for n in (1, 2, 3)]
    whole = b"".join(part.read_bytes() for part in parts) + bytes(1024) + b"what somebody left behind the end"
    (tmp_path / name).write_bytes(gzip.compress(whole) if name.endswith(".tgz") else whole)
    archive = Archive(tmp_path / name)
    assert [(member.ordinal, member.name) for member in archive.members()] == [(0, "1.png"), (2, "2.png"), (4, "3.png")]
    assert indices(archive) == [1, 2, 3]


@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_a_file_with_holes_is_an_error_of_that_member(tmp_path: Path, form: str) -> None:
    (tmp_path / "whole.png").write_bytes(picture_bytes(1))
    with (tmp_path / "holes.png").open("wb") as file:
        file.truncate(1 << 20)
        file.seek(1 << 19)
        file.write(picture_bytes(2))
    path = tmp_path / "x.tar"
    command = ["tar", f"--format={form}", "--sparse", "-cf", str(path), "-C", str(tmp_path), "holes.png", "whole.png"]
    subprocess.run(command, check=True)
    archive = Archive(path)
    holes, whole = archive.members()
    with pytest.raises(MediaError, match=r"holes\.png: .*--sparse") as raised:
        archive.read(holes)
    assert raised.value.code == ErrorCode.ARCHIVE_MEMBER
    assert read_index(decode_picture(archive.read(whole), 10**6)) == 1


def test_links_directories_and_devices_are_no_pictures(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in (
            ("link.png", tarfile.SYMTYPE),
            ("hard.png", tarfile.LNKTYPE),
            ("folder.png", tarfile.DIRTYPE),
            ("device.png", tarfile.CHRTYPE),
            ("../../real.png", tarfile.REGTYPE),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/passwd"
            data = picture_bytes(4) if kind == tarfile.REGTYPE else b""
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    assert [(member.ordinal, member.name) for member in Archive(path).members()] == [(4, "../../real.png")]
    zipped = tmp_path / "x.zip"
    with zipfile.ZipFile(zipped, "w") as zip_archive:
        link = zipfile.ZipInfo("link.png")
        link.external_attr = 0o120777 << 16
        zip_archive.writestr(link, "/etc/passwd")
        zip_archive.writestr("folder.png/", "")
        zip_archive.writestr("real.png", picture_bytes(5))
    assert [member.name for member in Archive(zipped).members()] == ["real.png"]


def test_a_tar_that_ends_early_keeps_what_is_there(tmp_path: Path) -> None:
    pictures = [(f"{index}.png", picture_bytes(index)) for index in range(6)]
    data = write_tar(tmp_path / "x.tar", pictures).read_bytes()
    (tmp_path / "cut.tar").write_bytes(data[: Archive(tmp_path / "x.tar").members()[4].offset + 100])
    archive = Archive(tmp_path / "cut.tar")
    read, failed = [], []
    for member in archive.members():
        try:
            read.append(read_index(decode_picture(archive.read(member), 10**6)))
        except MediaError as error:
            failed.append((member.name, error.code))
    assert read == [0, 1, 2, 3]
    assert failed == [("4.png", ErrorCode.ARCHIVE_MEMBER)]


@pytest.mark.parametrize("power", [44, 50, 59])
def test_a_tar_member_larger_than_any_disk_costs_what_follows_it(tmp_path: Path, power: int) -> None:
    huge = tarfile.TarInfo("film.mp4")
    huge.size = 1 << power
    data = write_tar(tmp_path / "x.tar", [("0.png", picture_bytes(0))]).read_bytes().rstrip(b"\0")
    data += bytes(-len(data) % tarfile.BLOCKSIZE)
    (tmp_path / "x.tar").write_bytes(data + huge.tobuf(tarfile.GNU_FORMAT) + bytes(5000))
    archive = Archive(tmp_path / "x.tar")
    first, lost = archive.members()
    assert read_index(decode_picture(archive.read(first), 10**6)) == 0
    with pytest.raises(MediaError, match=f"damaged at byte {len(data)}") as caught:
        archive.read(lost)
    assert caught.value.code == ErrorCode.ARCHIVE_MEMBER


def test_a_tar_gz_that_ends_early_keeps_what_is_there(tmp_path: Path) -> None:
    pictures = [(f"{index}.jpg", picture_bytes(index, "JPEG")) for index in range(12)]
    cut = truncated(write_tar(tmp_path / "x.tgz", pictures), tmp_path / "cut.tgz", 0.6)
    archive = Archive(cut)
    members = archive.members()
    assert len(members) > 4
    assert [read_index(decode_picture(archive.read(member), 10**6)) for member in members[:-1]] == list(
        range(len(members) - 1)
    )
    with pytest.raises(MediaError):
        archive.read(members[-1])


def test_a_damaged_header_inside_a_tar_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tar")
    data = bytearray(path.read_bytes())
    third = [member.offset for member in Archive(path).members()][2] - tarfile.BLOCKSIZE
    data[third : third + 100] = b"\xee" * 100
    path.write_bytes(data)
    archive = Archive(path)
    members = archive.members()
    assert [member.name for member in members] == ["a.png", "b/c.jpg", ""]
    with pytest.raises(MediaError, match=f"damaged at byte {third}") as caught:
        archive.read(members[-1])
    assert caught.value.code == ErrorCode.ARCHIVE_MEMBER


def test_a_damaged_and_an_encrypted_zip_member(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.zip", [("a.png", picture_bytes(1)), ("b.png", picture_bytes(2)), ("c.png", picture_bytes(3))]
    )
    members = Archive(path).members()
    data = bytearray(path.read_bytes())
    data[members[1].offset + 60] ^= 0xFF
    central = data.rindex(b"PK\x01\x02")
    data[central + 8] |= 1  # c.png says it is encrypted
    path.write_bytes(data)
    archive = Archive(path)
    assert read_index(decode_picture(archive.read(members[0]), 10**6)) == 1
    for member, reason in ((members[1], "b.png"), (members[2], "encrypted")):
        with pytest.raises(MediaError, match=reason) as caught:
            archive.read(member)
        assert caught.value.code == ErrorCode.ARCHIVE_MEMBER


def test_a_damaged_lzma_zip_member_is_one_error(tmp_path: Path) -> None:
    """The stream, its properties, and their length."""
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for index in range(4):
            archive.writestr(f"{index}.png", picture_bytes(index))
    data = bytearray(path.read_bytes())
    members = Archive(path).members()
    starts = [member.offset + 30 + len(member.name) for member in members]  # a local header has 30 bytes and the name
    data[starts[0] + 9 : starts[0] + 40] = b"\xff" * 31
    data[starts[1] + 4] = 0xFF  # no property byte is that large
    data[starts[2] + 2] = 1
    path.write_bytes(data)
    damaged = Archive(path)
    for member in members[:3]:
        with pytest.raises(MediaError, match=member.name) as read:
            damaged.read(member)
        with pytest.raises(MediaError, match=member.name) as copied:
            damaged.copy(member, tmp_path / "x")
        assert read.value.code == copied.value.code == ErrorCode.ARCHIVE_MEMBER
    assert read_index(decode_picture(damaged.read(members[3]), 10**6)) == 3


def test_a_webdataset_shard_gives_its_pictures_and_leaves_the_rest_alone(tmp_path: Path) -> None:
    sample = {"jpg": picture_bytes(1, "JPEG"), "txt": b"words", "json": b"{}", "cls": b"7", "npy": b"\x93NUMPY"}
    members = [(f"shard/{key:06}.{suffix}", data) for key in range(3) for suffix, data in sample.items()]
    found = Archive(write(tmp_path / "x.tar", members)).members()
    assert [(member.ordinal, member.name) for member in found] == [(key * 5, f"shard/{key:06}.jpg") for key in range(3)]


def test_zip64_and_a_tar_with_long_names(tmp_path: Path) -> None:
    pictures = [(f"{'deep/' * 60}{index}.png", picture_bytes(index)) for index in (1, 2, 3)]
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name, data in pictures:
            with archive.open(name, "w", force_zip64=True) as stream:
                stream.write(data)
    for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        with tarfile.open(tmp_path / f"{kind}.tar", "w", format=kind) as tar:
            for name, data in pictures:
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    for path in sorted(tmp_path.iterdir()):
        archive = Archive(path)
        assert [member.name for member in archive.members()] == [name for name, _ in pictures]
        assert indices(archive) == [1, 2, 3]


@pytest.mark.parametrize(("name", "code"), [("x.zip", ErrorCode.TRUNCATED)])
def test_a_zip_without_its_end(tmp_path: Path, name: str, code: ErrorCode) -> None:
    with pytest.raises(MediaError) as caught:
        Archive(truncated(write(tmp_path / name), tmp_path / "cut.zip", 0.7))
    assert caught.value.code == code


def test_gzip_that_holds_no_tar_and_gzip_that_grows_too_large(tmp_path: Path) -> None:
    import gzip

    path = tmp_path / "x.tgz"
    path.write_bytes(gzip.compress(b"words " * 1000))
    with pytest.raises(MediaError, match="no tar archive"):
        Archive(path)
    entry = tarfile.TarInfo("large.png")
    entry.size = 1 << 40
    path.write_bytes(gzip.compress(entry.tobuf() + bytes(16 << 20)) + gzip.compress(bytes(16 << 20)) * 100)
    with pytest.raises(MediaError) as caught:
        Archive(path).members()
    assert caught.value.code == ErrorCode.TOO_LARGE
