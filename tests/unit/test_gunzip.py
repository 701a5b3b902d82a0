"""A gzip file read forward at offsets: the same bytes as unpacked, in one pass, whatever happened to its end."""

from __future__ import annotations

import gzip
import io
import random
from pathlib import Path

import pytest

from pipeline.errors import ErrorCode, MediaError
from pipeline.media import gunzip
from pipeline.media.gunzip import Gunzip

DATA = random.Random(5).randbytes(3_500_000)


class Counted(Gunzip):
    """Counts how often it begins at the beginning."""

    passes = 0

    def _rewind(self) -> None:
        self.passes += 1
        super()._rewind()


@pytest.fixture(params=["one member", "joined", "padded"])
def packed(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "x.gz"
    whole = gzip.compress(DATA, 1)
    parts = gzip.compress(DATA[:1_000_000], 1) + gzip.compress(DATA[1_000_000:], 9)
    path.write_bytes({"one member": whole, "joined": parts, "padded": whole + bytes(512)}[request.param])
    return path


def test_reads_and_seeks_are_those_of_a_file(packed: Path) -> None:
    file, plain, choices = Gunzip(packed), io.BytesIO(DATA), random.Random(1)
    for _ in range(60):
        if choices.random() < 0.5:
            offset = choices.randrange(len(DATA))
            assert file.seek(offset) == plain.seek(offset)
        size = choices.choice([0, 1, 512, 70_000, 1_200_000])
        assert file.read(size) == plain.read(size)
        assert file.tell() == plain.tell()
    file.close()


def test_going_forward_and_a_little_back_is_one_pass(packed: Path) -> None:
    file = Counted(packed)
    for offset in range(0, len(DATA), 300_000):
        file.seek(offset)
        file.read(100_000)
        file.seek(offset + 50_000)
    assert file.seek(10**12) == len(DATA)
    assert file.read(5) == b""
    file.seek(len(DATA) - 512)
    assert file.read(600) == DATA[-512:]
    assert file.passes == 1
    file.seek(0)
    assert file.read(9) == DATA[:9]
    assert file.passes == 2


@pytest.mark.parametrize("damage", ["cut", "flipped", "wrong sum", "followed by rubbish"])
def test_what_came_before_damage_is_there(tmp_path: Path, damage: str) -> None:
    good = bytearray(gzip.compress(DATA, 1))
    if damage == "cut":
        del good[len(good) // 2 :]
    elif damage == "flipped":
        good[len(good) // 2 : len(good) // 2 + 64] = b"\xff" * 64
    elif damage == "wrong sum":
        good[-8:-4] = bytes(4)
    else:
        good += b"\x99" * 1000
    (tmp_path / "x.gz").write_bytes(good)
    read = Gunzip(tmp_path / "x.gz").read(2 * len(DATA))
    assert len(read) > 1_000_000
    assert read[:1_000_000] == DATA[:1_000_000]
    if damage in ("wrong sum", "followed by rubbish"):
        assert len(read) > len(DATA) - 2 * (1 << 20)


def test_a_bomb_is_refused_and_never_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gunzip, "_BOMB_BYTES", 32 << 20)
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(bytes(64 << 20)))
    with pytest.raises(MediaError) as caught:
        Gunzip(path).seek(1 << 40)
    assert caught.value.code == ErrorCode.TOO_LARGE
