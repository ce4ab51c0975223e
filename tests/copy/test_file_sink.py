"""Writing to files and block devices, and reading them back."""

from __future__ import annotations

import errno
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.places import loop_device
from v2v.copy.sinks import FileSink, NullSink, _fallocate
from v2v.extents import Extent
from v2v.types import KiB, MiB

SIZE = 3 * MiB


@pytest.fixture
def open_sink() -> Iterator[Callable[..., FileSink]]:
    fds = []

    def open_one(path: Path, **options) -> FileSink:
        fds.append(os.open(path, os.O_RDWR | os.O_CREAT))
        return FileSink(fds[-1], request_size=None, is_zero=False, **options)

    yield open_one
    for fd in fds:
        os.close(fd)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(b"\xff" * SIZE)
    return path


@pytest.fixture
def plain_folder(tmp_path: Path) -> Iterator[Path]:
    """A filesystem without holes, and without anything special."""
    folder = tmp_path / "plain"
    folder.mkdir()
    argv = ["mount", "-t", "ramfs", "v2v-test", folder]
    if subprocess.run(argv, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def loop_of() -> Iterator[Callable[..., Path]]:
    """Makes loop devices of files."""
    with ExitStack() as stack:
        yield lambda file, *options: stack.enter_context(loop_device(file, *options))


def content(path: Path, size: int = SIZE) -> bytes:
    with path.open("rb") as file:
        return file.read(size)


def noise(seed: int, length: int) -> memoryview:
    return memoryview(random.Random(seed).randbytes(length))


def zeroed(offset: int, length: int) -> bytes:
    return (b"\xff" * offset + bytes(length)).ljust(SIZE, b"\xff")


# Zeroes


@pytest.mark.parametrize("sparse", [True, False])
def test_zeroing_gives_space_back_if_sparse(path: Path, open_sink, sparse: bool) -> None:
    blocks = path.stat().st_blocks
    sink = open_sink(path, sparse=sparse)
    sink.zero(1 * MiB, 1 * MiB + 512)
    sink.flush()
    assert content(path) == zeroed(1 * MiB, 1 * MiB + 512)
    assert (path.stat().st_blocks < blocks) == sparse


@pytest.mark.parametrize("sparse", [True, False])
def test_zeroing_where_the_filesystem_cannot(plain_folder: Path, open_sink, sparse: bool) -> None:
    path = plain_folder / "disk"
    path.write_bytes(b"\xff" * SIZE)
    open_sink(path, sparse=sparse).zero(512 * KiB + 1, 2 * MiB + 77)
    assert content(path) == zeroed(512 * KiB + 1, 2 * MiB + 77)


def test_fallocate_tells_what_cannot_be_done_from_errors() -> None:
    reading, writing = os.pipe()
    try:
        with pytest.raises(OSError, match="Illegal seek"):
            _fallocate.fallocate(writing, _fallocate.ZERO_RANGE, 0, 1)
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("sector", [512, 4096])
def test_zeroing_any_range_of_a_device(path, open_sink, loop_of, sector: int, sparse: bool) -> None:
    device = loop_of(path, f"--sector-size={sector}")
    sink = open_sink(device, sparse=sparse, size=SIZE)
    model = bytearray(b"\xff" * SIZE)
    chance = random.Random(sector)
    edges = [(0, 1), (sector - 1, 2), (sector, sector), (0, sector), (100, 50), (SIZE - 1, 1)]
    ranges = [(chance.randrange(SIZE // 2), chance.randrange(1, SIZE // 4)) for _ in range(20)]
    for offset, length in [*edges, *ranges]:
        sink.zero(offset, length)
        model[offset : offset + length] = bytes(length)
        refill = noise(length, 3 * sector)
        sink.write(offset, refill[: SIZE - offset])
        model[offset : offset + len(refill)] = refill[: SIZE - offset]
    sink.flush()
    found = memoryview(bytearray(SIZE))
    sink.read_back(0, found)
    assert found == model


def test_zeroes_on_a_device_give_space_back(path: Path, open_sink, loop_of) -> None:
    sink = open_sink(loop_of(path), size=SIZE)
    blocks = path.stat().st_blocks
    sink.zero(1 * MiB, 1 * MiB)
    sink.flush()
    os.sync()
    assert path.stat().st_blocks < blocks


# Writing


def test_many_threads_write_and_zero_at_once(path: Path, open_sink) -> None:
    sink = open_sink(path)
    cell = 16 * KiB

    def fill(number: int) -> None:
        if number % 3:
            sink.write(number * cell, noise(number, cell))
        else:
            sink.zero(number * cell, cell)

    with ThreadPoolExecutor(sink.workers) as threads:
        list(threads.map(fill, range(SIZE // cell)))
    sink.flush()
    cells = [noise(n, cell) if n % 3 else bytes(cell) for n in range(SIZE // cell)]
    assert content(path) == b"".join(cells)


def test_a_full_filesystem_is_told_as_such(small: Path, open_sink) -> None:
    sink = open_sink(small / "disk")
    with pytest.raises(OSError, match="No space left") as error:
        sink.write(0, memoryview(bytes(16 * MiB)))
    assert error.value.errno == errno.ENOSPC


def test_a_failed_flush_stays_failed(small: Path, open_sink, loop_of) -> None:
    """Linux tells a descriptor once that data is lost; the next flush would succeed."""
    image = small / "image"
    image.touch()
    os.truncate(image, 16 * MiB)
    sink = open_sink(loop_of(image))
    with pytest.raises(OSError):
        sink.write(0, noise(1, 16 * MiB))
        sink.flush()
    with pytest.raises(OSError):
        sink.flush()


def pages_cached(path: Path) -> int:
    argv = ["fincore", "--noheadings", "--bytes", "--output", "PAGES", str(path)]
    return int(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)


def test_drop_cache_keeps_the_target_out_of_the_page_cache(path, open_sink, need_tool) -> None:
    need_tool("fincore")
    sink = open_sink(path, drop_cache=True)
    sink.write(0, noise(1, SIZE))
    assert pages_cached(path) > 0
    sink.flush()
    assert pages_cached(path) == 0
    sink.read_back(0, memoryview(bytearray(SIZE)))
    assert pages_cached(path) == 0


# Reading back


def test_reading_back_asks_the_disk_and_not_the_cache(path: Path, open_sink, loop_of) -> None:
    sink = open_sink(loop_of(path))
    sink.write(0, noise(1, SIZE))
    sink.flush()
    path.write_bytes(noise(2, SIZE))  # the disk goes bad behind the device's cache
    os.sync()
    found = memoryview(bytearray(MiB))
    sink.read_back(MiB, found)
    assert found == noise(2, SIZE)[MiB : 2 * MiB]


def test_reading_back_past_the_end_of_a_file_fails(path: Path, open_sink) -> None:
    with pytest.raises(OSError, match=f"ends at byte {SIZE}"):
        open_sink(path).read_back(SIZE - 10, memoryview(bytearray(11)))


def test_extents_are_those_of_the_file(path: Path, open_sink) -> None:
    sink = open_sink(path)
    sink.zero(0, 64 * KiB)
    sink.zero(MiB, MiB)
    sink.flush()
    assert list(sink.extents()) == [
        Extent(0, 64 * KiB, zero=True),
        Extent(64 * KiB, MiB - 64 * KiB),
        Extent(MiB, MiB, zero=True),
        Extent(2 * MiB, MiB),
    ]


def test_extents_end_where_the_disk_does(path: Path, open_sink) -> None:
    open_sink(path).zero(MiB, 2 * MiB)
    hole = Extent(MiB, MiB, zero=True)
    assert list(open_sink(path, size=2 * MiB).extents()) == [Extent(0, MiB), hole]
    missing = list(open_sink(path, size=SIZE + 5).extents())
    assert missing[-1] == Extent(SIZE, 5)  # to be read, which will tell


def test_extents_of_a_file_that_is_all_hole(tmp_path: Path, open_sink) -> None:
    sink = open_sink(tmp_path / "blank")
    os.truncate(tmp_path / "blank", SIZE)
    assert list(sink.extents()) == [Extent(0, SIZE, zero=True)]


def test_where_holes_cannot_be_told_all_is_data(plain_folder: Path, open_sink, loop_of) -> None:
    path = plain_folder / "disk"
    path.touch()
    os.truncate(path, SIZE)
    assert list(open_sink(path).extents()) == [Extent(0, SIZE)]


def test_a_device_is_all_data_and_may_be_larger_than_the_disk(path, open_sink, loop_of) -> None:
    device = loop_of(path)
    assert list(open_sink(device, size=2 * MiB).extents()) == [Extent(0, 2 * MiB)]
    assert list(open_sink(device).extents()) == [Extent(0, SIZE)]


# Cloning


def clone_all(sink: FileSink, source: Path, length: int = SIZE) -> bool:
    with source.open("rb") as file:
        return sink.clone(file.fileno(), 0, length)


def test_cloning_copies_ranges_from_many_threads(path: Path, tmp_path: Path, open_sink) -> None:
    source = tmp_path / "source"
    source.write_bytes(noise(1, SIZE))
    sink = open_sink(path)
    with source.open("rb") as file, ThreadPoolExecutor(8) as threads:
        spans = range(MiB + 4096, SIZE, 64 * KiB)
        for done in threads.map(lambda at: sink.clone(file.fileno(), at, 64 * KiB), spans[:-1]):
            assert done
    end = spans[-1]
    assert content(path)[: MiB + 4096] == b"\xff" * (MiB + 4096)
    assert content(path)[MiB + 4096 : end] == noise(1, SIZE)[MiB + 4096 : end]
    assert sink.notes == []


def test_cloning_stops_where_the_source_ends(path: Path, tmp_path: Path, open_sink) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"short")
    sink = open_sink(path)
    assert not clone_all(sink, source)
    assert clone_all(sink, source, 5)  # the kernel can, so it is asked again


def test_what_cannot_be_cloned_is_noted_once(path: Path, plain_folder: Path, open_sink) -> None:
    sink = open_sink(plain_folder / "disk")
    assert not clone_all(sink, path)
    assert not clone_all(sink, path)
    assert sink.notes == ["copy_file_range: Invalid cross-device link"]


def test_a_device_cannot_be_cloned_to(path: Path, tmp_path: Path, open_sink, loop_of) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(SIZE))
    sink = open_sink(loop_of(image))
    assert not clone_all(sink, path)
    assert len(sink.notes) == 1


def test_cloning_into_a_full_filesystem_is_an_error(small: Path, open_sink) -> None:
    source = small / "source"
    source.write_bytes(noise(1, 5 * MiB))
    with pytest.raises(OSError) as error:
        clone_all(open_sink(small / "disk"), source, 5 * MiB)
    assert error.value.errno == errno.ENOSPC


# Nothing


def test_the_null_sink_keeps_nothing() -> None:
    sink = NullSink(size=SIZE)
    sink.write(0, noise(1, MiB))
    sink.flush()
    assert list(sink.extents()) == [Extent(0, SIZE, zero=True)]
    with pytest.raises(OSError) as error:
        sink.read_back(0, memoryview(bytearray(MiB)))
    assert error.value.errno == errno.EOPNOTSUPP
