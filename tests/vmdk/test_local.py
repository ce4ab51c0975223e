"""Files of this host as a store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from v2v.errors import SourceError
from v2v.extents import Extent, merge
from v2v.types import KiB, MiB
from v2v.vmdk import LocalStore


@pytest.fixture
def store() -> Iterator[LocalStore]:
    with LocalStore() as store:
        yield store


def test_a_file_is_read(tmp_path: Path, store: LocalStore) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    file = store.open(str(tmp_path / "file"))
    assert (file.size, file.name) == (10, str(tmp_path / "file"))
    assert [file.read(*at) for at in ((0, 4), (8, 4), (10, 1), (99, 1))] == [
        b"0123",
        b"89",
        b"",
        b"",
    ]
    buffer = bytearray(4)
    file.read_into(6, memoryview(buffer))
    assert buffer == b"6789"
    with pytest.raises(SourceError) as caught:
        file.read_into(7, memoryview(buffer))
    assert caught.value.id == "source-read"


def test_holes_are_told(tmp_path: Path, store: LocalStore) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        for at in (MiB, 3 * MiB):
            file.seek(at)
            file.write(b"x" * 64 * KiB)
        file.truncate(5 * MiB)
    opened = store.open(str(path))
    found = list(opened.extents(0, 5 * MiB))
    assert list(merge(found)) == found
    if not any(extent.zero for extent in found):
        pytest.skip("this filesystem does not tell holes")
    assert found == [
        Extent(0, MiB, zero=True),
        Extent(MiB, 64 * KiB),
        Extent(MiB + 64 * KiB, 2 * MiB - 64 * KiB, zero=True),
        Extent(3 * MiB, 64 * KiB),
        Extent(3 * MiB + 64 * KiB, 2 * MiB - 64 * KiB, zero=True),
    ]
    assert list(opened.extents(MiB + 10, 20)) == [Extent(MiB + 10, 20)]
    assert list(opened.extents(4 * MiB, 20)) == [Extent(4 * MiB, 20, zero=True)]
    assert list(opened.extents(4 * MiB, 0)) == []


def test_a_file_that_is_cut_while_it_is_read(tmp_path: Path, store: LocalStore) -> None:
    (tmp_path / "file").write_bytes(b"x" * MiB)
    file = store.open(str(tmp_path / "file"))
    os.truncate(tmp_path / "file", KiB)
    with pytest.raises(SourceError, match="ends there") as caught:
        file.read_into(0, memoryview(bytearray(MiB)))
    assert caught.value.id == "source-read"


def test_what_was_cut_off_is_no_hole(tmp_path: Path, store: LocalStore) -> None:
    (tmp_path / "file").write_bytes(b"x" * MiB)
    file = store.open(str(tmp_path / "file"))
    os.truncate(tmp_path / "file", 64 * KiB)
    assert not any(one.zero for one in file.extents(0, MiB))
    assert not any(one.zero for one in file.extents(512 * KiB, 1024))


def test_the_version_is_another_one_after_a_write(tmp_path: Path, store: LocalStore) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    before = store.open(str(path)).version
    assert store.open(str(path)).version == before
    os.utime(path, ns=(1, 1))
    assert store.open(str(path)).version != before


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("nothing", "image-file-missing"),
        (".", "source-unreadable"),
        ("fifo", "source-unreadable"),
        ("x" * 300, "source-unreadable"),
        ("file/x", "source-unreadable"),
    ],
)
def test_what_is_no_file(tmp_path: Path, store: LocalStore, name: str, id: str) -> None:
    (tmp_path / "file").write_bytes(b"x")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SourceError) as caught:
        store.open(f"{tmp_path}/{name}")
    assert caught.value.id == id
    assert caught.value.hint


def test_files_are_closed_with_the_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with LocalStore() as store:
        file = store.open(str(tmp_path / "file"))
        assert file.read(0, 1) == b"x"
    with pytest.raises(SourceError):
        file.read(0, 1)


def test_links_are_followed(tmp_path: Path, store: LocalStore) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    assert store.real_path(f"{tmp_path}/link") == store.real_path(f"{tmp_path}/./file")
