"""INPUT arguments to sources: the same ids however an input is spelled."""

from __future__ import annotations

import os
import random
import re
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.options import read_list
from pipeline.errors import StoreError, UsageError
from pipeline.media.locations import MISSING, local_path, normalise, open_filesystem, remote_fingerprint
from pipeline.media.sources import Listing, list_sources, location_below


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """a.mp4, b.mov, deep/c.mp4, deep/er/d.jpg, deep/notes.txt, .hidden.mp4, plain"""
    root = tmp_path / "in"
    (root / "deep" / "er").mkdir(parents=True)
    for name in ("a.mp4", "b.mov", "deep/c.mp4", "deep/er/d.jpg", "deep/notes.txt", ".hidden.mp4", "plain"):
        (root / name).write_bytes(name.encode())
    monkeypatch.chdir(root)
    return root


def ids(listing: Listing) -> list[str]:
    return [source.source_id for source in listing.sources]


def names(listing: Listing, tree: Path) -> list[str]:
    return [source.uri.removeprefix(f"{tree}/") for source in listing.sources]


def test_a_directory_gives_known_media_and_counts_the_rest(tree: Path) -> None:
    listing = list_sources([str(tree)])
    assert names(listing, tree) == ["a.mp4", "b.mov", "deep/c.mp4", "deep/er/d.jpg"]
    assert listing.skipped == {".txt": 1, "hidden": 1, "no suffix": 1}
    (note,) = listing.notes()
    assert note == "skipped: no media suffix (.txt 1, no suffix 1); name a file to force it"
    assert "hidden" not in note


def test_a_named_file_is_taken_whatever_its_suffix(tree: Path) -> None:
    assert names(list_sources(["plain", "deep/notes.txt"]), tree) == ["deep/notes.txt", "plain"]


def test_an_input_that_overlaps_another_counts_once(tree: Path) -> None:
    assert ids(list_sources([str(tree), "a.mp4", "deep", "**/*.mp4"])) == ids(list_sources(["."]))


def test_a_folder_that_a_pattern_names_gives_what_is_below(tree: Path) -> None:
    assert names(list_sources(["**/er*"]), tree) == ["deep/er/d.jpg"]
    assert names(list_sources(["*/er*"]), tree) == ["deep/er/d.jpg"]


def test_a_pattern_does_not_follow_links_in_circles(tree: Path) -> None:
    (tree / "deep" / "up").symlink_to(tree)
    (tree / "deep" / "again").symlink_to(tree / "deep")
    assert names(list_sources(["**/*.mp4"]), tree) == ["a.mp4", "deep/c.mp4"]
    assert names(list_sources(["**"]), tree) == ["a.mp4", "b.mov", "deep/c.mp4", "deep/er/d.jpg"]


def test_names_that_are_no_unicode_are_relative_to_a_root_too(tree: Path) -> None:
    root = tree / "my dir"
    root.mkdir()
    undecodable = os.fsdecode(b"caf\xe9.png")
    for name in (undecodable, "caf%E9.png", "file:x.png"):
        (root / name).write_bytes(b"x")
    listing = list_sources([str(root)], root=str(root))
    uris = sorted(source.uri for source in listing.sources)
    assert uris == ["caf%E9.png", "file:caf%E9.png", "file:file%3Ax.png"]
    for source in listing.sources:
        assert local_path(location_below(str(root), source.uri)) == local_path(source.location)
    assert len({source.source_id for source in listing.sources}) == 3


def test_globs(tree: Path) -> None:
    assert names(list_sources(["*.mp4"]), tree) == ["a.mp4"]
    assert names(list_sources(["**/*.mp4"]), tree) == ["a.mp4", "deep/c.mp4"]
    assert names(list_sources(["**"]), tree) == ["a.mp4", "b.mov", "deep/c.mp4", "deep/er/d.jpg"]
    assert names(list_sources(["d*"]), tree) == ["deep/c.mp4", "deep/er/d.jpg"]
    assert names(list_sources(["deep/*.txt"]), tree) == ["deep/notes.txt"]
    assert names(list_sources(["[ab].m*"]), tree) == ["a.mp4", "b.mov"]


def test_a_name_with_brackets_is_the_file_of_that_name(tree: Path) -> None:
    (tree / "take[1].mp4").write_bytes(b"x")
    assert names(list_sources(["take[1].mp4"]), tree) == ["take[1].mp4"]


spellings = st.lists(st.sampled_from(["./", "deep/../", "/", "deep/er/../../"]), max_size=4).map("".join)


@settings(max_examples=40, deadline=None)
@given(prefix=spellings, seed=st.integers(0, 99), scheme=st.sampled_from(["", "file://"]))
def test_spelling_order_and_grouping_do_not_change_ids(
    tmp_path_factory: pytest.TempPathFactory, prefix: str, seed: int, scheme: str
) -> None:
    root = tmp_path_factory.getbasetemp() / "spelled"
    (root / "deep" / "er").mkdir(parents=True, exist_ok=True)
    files = ["a.mp4", "b c.mov", "deep/c.mp4", "deep/er/d.jpg"]
    for name in files:
        if not (root / name).exists():
            (root / name).write_bytes(b"x")
    expected = list_sources([str(root)])
    shuffled = random.Random(seed).sample(files, len(files))
    spelled = [f"{scheme}{root}/{prefix}{name}" for name in shuffled]
    assert list_sources(spelled).sources == expected.sources
    parts = [*spelled[:2], f"{scheme}{root}/{prefix}deep", *spelled[2:]]
    assert ids(list_sources(parts)) == ids(expected)


def test_unicode_forms_of_a_name_are_one_uri(tree: Path) -> None:
    (tree / "caf\u0065\u0301.mp4").write_bytes(b"x")
    assert list_sources(["caf*.mp4"]).sources[0].uri.endswith("caf\u00e9.mp4")
    assert Path(list_sources(["caf*.mp4"]).sources[0].location).exists()


def test_two_files_that_differ_in_unicode_form_only_both_count(tree: Path) -> None:
    for name in ("caf\u0065\u0301.mp4", "caf\u00e9.mp4"):
        (tree / name).write_bytes(b"x")
    listing = list_sources(["."])
    assert len({source.location for source in listing.sources if "caf" in source.uri}) == 2
    assert len(set(ids(listing))) == len(listing.sources)


def test_a_name_that_is_no_unicode_can_be_opened(tree: Path) -> None:
    raw = os.fsencode(str(tree)) + b"/\xff\xfe.mp4"
    Path(os.fsdecode(raw)).write_bytes(b"x")
    (source,) = [source for source in list_sources(["."]).sources if "%FF" in source.uri]
    path = local_path(source.location)
    assert path is not None
    assert os.fsencode(path) == raw


def test_links_are_not_resolved_and_loops_end(tree: Path) -> None:
    (tree / "linked.mp4").symlink_to("a.mp4")
    (tree / "deep" / "up").symlink_to(tree, target_is_directory=True)
    os.mkfifo(tree / "pipe.mp4")  # only regular files are taken from a directory
    (tree / "broken.mp4").symlink_to("nowhere.mp4")
    listing = list_sources(["."])
    assert "linked.mp4" in names(listing, tree)
    assert "pipe.mp4" not in names(listing, tree)
    assert {source.fingerprint for source in listing.sources if source.uri.endswith("broken.mp4")} == {MISSING}


def test_a_named_file_that_is_not_there_is_a_source_among_others(tree: Path) -> None:
    missing = next(one for one in list_sources(["gone.mp4", "a.mp4"]).sources if one.uri.endswith("gone.mp4"))
    assert (missing.fingerprint, missing.size_bytes) == (MISSING, 0)


def test_inputs_of_which_none_is_there_are_a_slip(tree: Path) -> None:
    for inputs, listed in ((["gone.mp4", f"file://{tree}/away"], []), ([], ["gone.mp4", "away"])):
        with pytest.raises(UsageError, match=r"not one of the inputs is there.*: .*gone\.mp4, .*away\. Check the path"):
            list_sources(inputs, listed=listed)
    (tree / "link.mp4").symlink_to("gone.mp4")
    assert [one.fingerprint for one in list_sources(["link.mp4"]).sources] == [MISSING], "a name that is there"


def test_nothing_at_all_is_an_error_that_names_the_inputs(tree: Path) -> None:
    (tree / "empty").mkdir()
    with pytest.raises(UsageError, match=r"empty, x\*\.mp4"):
        list_sources(["empty", "x*.mp4"])
    listing = list_sources(["empty", "a.mp4", "x*.mp4", "a.mp4"])
    assert listing.unmatched == ["empty", "x*.mp4"]
    assert "nothing was found by empty, x*.mp4" in listing.notes()[0]


def test_a_list_is_taken_word_for_word(tree: Path) -> None:
    (tree / "take[1].mp4").write_bytes(b"x")
    (tree / "take1.mp4").write_bytes(b"x")
    (tree / "*.mov").write_bytes(b"x")
    listing = list_sources(["a.mp4"], listed=["take[1].mp4", "*.mov", "gone[2].mp4", "deep", "./a.mp4", "plain"])
    found = ["*.mov", "a.mp4", "deep/c.mp4", "deep/er/d.jpg", "gone[2].mp4", "plain", "take[1].mp4"]
    assert names(listing, tree) == found
    assert [source.uri for source in listing.sources if source.fingerprint == MISSING] == [f"{tree}/gone[2].mp4"]
    assert ids(list_sources([], listed=["a.mp4"])) == ids(list_sources(["a.mp4"]))
    with pytest.raises(UsageError, match="no input was given"):
        list_sources([])


@pytest.mark.parametrize(
    "data",
    [
        b"a.mp4\nwith space.mp4\n\ncaf\xc3\xa9.mp4\n\xff.mp4\n",
        b"a.mp4\r\nwith space.mp4\r\n\r\ncaf\xc3\xa9.mp4\r\n\xff.mp4",
        b"a.mp4\0with space.mp4\0caf\xc3\xa9.mp4\0\xff.mp4\0",
        b"\xef\xbb\xbfa.mp4\nwith space.mp4\ncaf\xc3\xa9.mp4\n\xff.mp4",
    ],
    ids=["lines", "windows", "nul", "bom"],
)
def test_what_a_list_names(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "list").write_bytes(data)
    expected = [b"a.mp4", b"with space.mp4", "café.mp4".encode(), b"\xff.mp4"]
    assert [os.fsencode(name) for name in read_list(str(tmp_path / "list"))] == expected
    with pytest.raises(UsageError, match="nowhere"):
        read_list(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(("url", "package"), [("gs://bucket/a.mp4", "gcsfs"), ("hf://datasets/a/b", "huggingface_hub")])
def test_a_store_whose_package_is_missing_names_it(url: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # what an import meets where it isn't installed
    with pytest.raises(UsageError, match=package):
        list_sources([url])
    with pytest.raises(UsageError, match=package):
        list_sources([], listed=[url])


def test_uris_are_relative_to_root(tree: Path) -> None:
    assert [source.uri for source in list_sources(["deep"], root=".").sources] == ["deep/c.mp4", "deep/er/d.jpg"]
    with pytest.raises(UsageError, match="outside of --root"):
        list_sources(["a.mp4"], root="deep")


def test_a_moved_tree_keeps_its_ids_under_root(tree: Path) -> None:
    before = ids(list_sources(["."], root="."))
    moved = tree.rename(tree.parent / "elsewhere")
    assert ids(list_sources([str(moved)], root=str(moved))) == before


def test_a_link_at_the_old_place_keeps_the_ids_of_a_moved_tree(tree: Path) -> None:
    """What docs/dataset.md tells those to do who move a folder: a dataset keeps the root that it was made with."""
    before = ids(list_sources([str(tree)]))
    moved = tree.rename(tree.parent / "moved")
    tree.symlink_to(moved)
    assert ids(list_sources([str(tree)])) == before
    assert ids(list_sources([str(moved)])) != before


def test_a_changed_file_is_another_source(tree: Path) -> None:
    before = list_sources(["a.mp4"]).sources[0]
    os.utime(tree / "a.mp4", ns=(1, 1))
    after = list_sources(["a.mp4"]).sources[0]
    assert before.uri == after.uri
    assert before.source_id != after.source_id


def test_user_info_and_query_never_reach_the_uri() -> None:
    assert normalise("https://me:secret@host/a.mp4?token=t#x") == "https://host/a.mp4"
    assert normalise("s3a://key:secret@bucket/a.mp4") == "s3://bucket/a.mp4"
    assert normalise("simplecache::https://h/a.mp4?token=T") == "simplecache::https://h/a.mp4"
    assert normalise("zip://a?.mp4::https://me:pw@h/z.zip?sig=T") == "zip://a?.mp4::https://h/z.zip"
    assert normalise("webdavs://h/a.mp4?token=T") == "webdavs://h/a.mp4"
    assert normalise("s3://bucket/what?.jpg") == "s3://bucket/what?.jpg"


def test_an_azure_container_is_part_of_the_name() -> None:
    first, second = (normalise(f"abfss://{container}@account.dfs/v/x.mp4") for container in ("c1", "c2"))
    assert (first, second) == ("abfss://c1@account.dfs/v/x.mp4", "abfss://c2@account.dfs/v/x.mp4")


class FailingFolder(SimpleHTTPRequestHandler):
    """A folder on the web, of which one file can't be had."""

    def send_head(self) -> Any:
        if "broken" in self.path:
            self.send_error(500)
            return None
        return super().send_head()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def website(tree: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(FailingFolder, directory=str(tree))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_files_on_the_web(website: str, tree: Path) -> None:
    named = list_sources([f"{website}/a.mp4"])
    (source,) = named.sources
    assert source.size_bytes == (tree / "a.mp4").stat().st_size
    filesystem, path = open_filesystem(source.location, {})
    assert source.fingerprint == remote_fingerprint(filesystem.info(path)) != MISSING
    assert list_sources([], listed=[f"{website}/a.mp4"]) == named
    below = list_sources([f"{website}/deep/"])
    assert [source.uri for source in below.sources] == [f"{website}/deep/c.mp4", f"{website}/deep/er/d.jpg"]
    assert all(source.size_bytes and source.fingerprint != MISSING for source in below.sources)
    assert list_sources([f"{website}/deep/*.mp4"]).sources == below.sources[:1]


def test_a_file_that_the_web_does_not_give_stops_no_other(website: str) -> None:
    listing = list_sources([f"{website}/{name}" for name in ("a.mp4", "broken.mp4", "gone.mp4")])
    assert [source.fingerprint == MISSING for source in listing.sources] == [False, True, True]


@pytest.mark.parametrize("given", ["zip://a.mp4::/nonexistent.zip", "https://", "unknown://a.mp4"])
def test_a_url_that_can_not_be_right_is_a_usage_error(given: str) -> None:
    with pytest.raises(UsageError, match=re.escape(given)):
        list_sources([given])


def test_a_server_that_does_not_answer_when_it_is_opened_is_a_store_error() -> None:
    with pytest.raises(StoreError, match="check network"):
        list_sources(["ftp://user:word@127.0.0.1:9/x"])


def test_any_fsspec_filesystem_will_do() -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe({"/media/a.mp4": b"1", "/media/b/c.mp4": b"2", "/media/d.txt": b"3"})
    listing = list_sources(["memory://media"])
    assert [source.uri for source in listing.sources] == ["memory://media/a.mp4", "memory://media/b/c.mp4"]
    assert listing.skipped == {".txt": 1}
