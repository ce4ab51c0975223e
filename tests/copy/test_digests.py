"""The checksum of a disk depends on its content and size alone, as documented."""

from __future__ import annotations

import errno
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.copy.copying import open_files
from v2v.copy.digests import CHUNK, Digests
from v2v.errors import JobError
from v2v.types import GiB, KiB

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "checksum.md"
TiB = 1024 * GiB
SIZE = 3 * CHUNK + 1000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "digests"


@pytest.fixture
def opened() -> Iterator[Callable[..., Digests]]:
    found = []

    def open_one(path: Path | None = None, size: int = SIZE) -> Digests:
        found.append(Digests(path, size))
        return found[-1]

    yield open_one
    for digests in found:
        digests.close()


def noise(length: int, *, seed: int = 1) -> memoryview:
    return memoryview(random.Random(seed).randbytes(length))


def documented(content: bytes | bytearray | memoryview, folder: Path) -> str:
    """What the program in the documentation says of a raw file."""
    found = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(found) == 1
    program, disk = folder / "program.py", folder / "disk.raw"
    program.write_text(found[0])
    disk.write_bytes(content)
    argv = [sys.executable, program, disk]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def filled(digests: Digests, content: memoryview) -> Digests:
    for start in range(0, len(content), CHUNK):
        digests.put(start, content[start : start + CHUNK])
    return digests


# The checksum -------------------------------------------------------------------------------------


def test_the_documented_program_is_ten_lines() -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(program.splitlines()) <= 10


def test_the_definition_has_not_changed(opened) -> None:
    """Checksums that people have kept stay valid."""
    content = bytes(CHUNK) + bytes(range(256)) * 10
    digests = filled(opened(size=len(content)), memoryview(content))
    assert digests.root() == "50a28e26af2d0b0fee70c56670c86236adda8a93675440e2ac4adf8cdd2deeae"
    assert opened(size=0).root() == blake3(b"v2v-checksum-1\n" + bytes(8)).hexdigest()


@pytest.mark.parametrize("size", [0, 1, 512, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, SIZE], ids=str)
@pytest.mark.parametrize("fill", ["data", "zeroes", "half"])
def test_it_is_that_of_the_documented_program(opened, tmp_path: Path, size: int, fill: str) -> None:
    content = bytearray(noise(size))
    if fill != "data":
        content[0 if fill == "zeroes" else size // 2 :] = bytes(size - size // 2 * (fill == "half"))
    assert len(content) == size
    digests = filled(opened(size=size), memoryview(content))
    assert digests.root() == documented(content, tmp_path)


def test_zeroes_of_another_size_have_another_checksum(opened) -> None:
    sizes = [0, 1, 512, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK]
    assert len({opened(size=size).root() for size in sizes}) == len(sizes)


CHUNKS = 5
PUTS = st.tuples(
    st.sampled_from(["data", "read zeroes", "known zeroes", "almost zeroes"]),
    st.integers(0, CHUNKS - 1),  # first chunk
    st.integers(1, 3),  # how many
    st.integers(0, 3),  # which data
)


def content_of(kind: str, length: int, seed: int) -> memoryview:
    if kind == "data":
        return noise(length, seed=seed)
    content = bytearray(length)
    if kind == "almost zeroes" and length:
        content[-1] = 1
    return memoryview(content)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    puts=st.lists(PUTS, max_size=8),
    tail=st.sampled_from([CHUNK, 1, 4 * KiB + 1]),
    keep=st.booleans(),
)
def test_however_the_content_came(tmp_path: Path, puts: list, tail: int, keep: bool) -> None:
    """Holes, zeroes that were read, chunks that were put again: the last content counts."""
    size = (CHUNKS - 1) * CHUNK + tail
    content = bytearray(size)
    path = tmp_path / "digests" if keep else None
    (tmp_path / "digests").unlink(missing_ok=True)
    digests = Digests(path, size)
    for kind, first, count, seed in puts:
        start, end = first * CHUNK, min((first + count) * CHUNK, size)
        put = content_of(kind, end - start, seed)
        content[start:end] = put
        if kind == "known zeroes":
            digests.put_zero(start, end - start)
        else:
            digests.put(start, put)
        if keep:
            digests.close()
            digests = Digests(path, size)
            assert digests.continued
    try:
        check(digests, content)
        assert digests.root() == documented(content, tmp_path)
    finally:
        digests.close()


def check(digests: Digests, content: bytearray) -> None:
    chunks = [content[start : start + CHUNK] for start in range(0, len(content), CHUNK)]
    assert list(digests.zeroes()) == [not any(chunk) for chunk in chunks]
    for number, chunk in enumerate(chunks):
        assert digests.matches(number * CHUNK, memoryview(chunk))
        chunk[len(chunk) // 2] ^= 1
        assert not digests.matches(number * CHUNK, memoryview(chunk))
    assert digests.matches(0, memoryview(content))  # all of them at once


def test_many_chunks_with_data_at_the_edges_of_what_is_looked_at_together(opened) -> None:
    """Where batches of slots meet, with holes and with data."""
    size = 100 * GiB + 5
    last = size // CHUNK
    places = [0, 32766, 32767, 32768, 65535, last - 1]
    digests = opened(size=size)
    for number, place in enumerate(places):
        digests.put(place * CHUNK, noise(CHUNK, seed=number))
    hole = blake3(bytes(CHUNK)).digest()
    slots = [hole] * last + [blake3(bytes(5)).digest()]
    for number, place in enumerate(places):
        slots[place] = blake3(noise(CHUNK, seed=number)).digest()
    whole = b"v2v-checksum-1\n" + size.to_bytes(8, "little") + b"".join(slots)
    assert digests.root() == blake3(whole).hexdigest()
    assert [n for n, zero in enumerate(digests.zeroes()) if not zero] == places


def test_many_threads_put(opened) -> None:
    content = noise(40 * CHUNK + 7)
    expected = filled(opened(size=len(content)), content).root()
    digests = opened(size=len(content))
    with ThreadPoolExecutor(8) as pool:
        starts = range(0, len(content), CHUNK)
        list(pool.map(lambda start: digests.put(start, content[start : start + CHUNK]), starts))
    assert digests.root() == expected


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (1, CHUNK),
        (0, CHUNK - 1),
        (CHUNK, 1),
        (2 * CHUNK, 2 * CHUNK),
        (4 * CHUNK, 0),
        (-CHUNK, CHUNK),
    ],
)
def test_parts_of_chunks_are_refused(opened, offset: int, length: int) -> None:
    digests = opened()
    for call in (digests.put, digests.matches):
        with pytest.raises(ValueError, match="whole chunks"):
            call(offset, memoryview(bytes(length)))
    with pytest.raises(ValueError, match="whole chunks"):
        digests.put_zero(offset, length)


# The file -----------------------------------------------------------------------------------------


def test_a_file_is_continued(opened, path: Path) -> None:
    content = noise(SIZE)
    first = opened(path)
    assert not first.continued
    first.put(0, content[: 2 * CHUNK])
    first.sync()
    second = opened(path)
    assert second.continued
    second.put(2 * CHUNK, content[2 * CHUNK :])
    assert second.root() == filled(opened(), content).root()
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("size", [SIZE + 1, SIZE - 1, SIZE + CHUNK, CHUNK, 0], ids=str)
def test_a_file_of_another_disk_is_begun_anew(opened, path: Path, size: int) -> None:
    filled(opened(path), noise(SIZE))
    digests = opened(path, size)
    assert not digests.continued
    assert digests.root() == opened(size=size).root()
    assert all(digests.zeroes())


@pytest.mark.parametrize("spoil", ["empty", "short", "garbage", "zeroes"])
def test_a_file_that_is_not_whole_is_begun_anew(opened, path: Path, spoil: str) -> None:
    filled(opened(path), noise(SIZE))
    whole = path.read_bytes()
    spoilt = {
        "empty": b"",
        "short": whole[:-1],
        "garbage": b"x" * len(whole),
        "zeroes": bytes(len(whole)),  # a crash before the first line was on the disk
    }
    path.write_bytes(spoilt[spoil])
    digests = opened(path)
    assert not digests.continued
    assert digests.root() == opened().root()


def test_holes_of_the_disk_take_no_room(opened, path: Path) -> None:
    digests = opened(path, 1 * TiB)
    digests.put_zero(0, 1 * TiB)
    digests.root()
    digests.zeroes()
    assert path.stat().st_blocks * 512 <= 64 * KiB
    assert path.stat().st_size <= 32 * (1 * TiB // CHUNK + 1)


def test_the_unnamed_file_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    digests = Digests(None, SIZE)
    filled(digests, noise(SIZE))
    assert list(tmp_path.iterdir()) == []
    before = open_files()
    digests.close()
    assert open_files() == before - 1


def test_a_full_filesystem_is_told(small: Path, opened) -> None:
    digests = opened(small / "digests", 1 * TiB)
    with (small / "ballast").open("wb", buffering=0) as file, pytest.raises(OSError) as full:
        while True:
            file.write(bytes(4 * KiB))
    assert full.value.errno == errno.ENOSPC
    with pytest.raises(JobError) as error:
        digests.put(512 * GiB, noise(CHUNK))
    assert error.value.id == "journal-write"
    assert str(small / "digests") in error.value.message and error.value.hint


def test_a_missing_folder_is_told(opened, tmp_path: Path) -> None:
    with pytest.raises(JobError) as error:
        opened(tmp_path / "missing" / "digests")
    assert error.value.id == "journal-write"


def test_a_file_that_is_cut_off_meanwhile_is_told(opened, path: Path) -> None:
    digests = filled(opened(path), noise(SIZE))
    os.truncate(path, 40)
    with pytest.raises(JobError) as error:
        digests.root()
    assert "read" in error.value.message
