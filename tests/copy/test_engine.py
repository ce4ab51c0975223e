"""The copy engine between real servers and real files."""

from __future__ import annotations

import os
import random
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.copy.copying import copied, shared
from v2v import nbd_client, nbdkit, qemu_img, qemu_nbd
from v2v.cancel import Cancel
from v2v.copy import engine
from v2v.copy.digests import CHUNK, Digests
from v2v.copy.engine import DiskCopy, Shared, copy_disk, measure
from v2v.copy.fetch import Fetcher
from v2v.copy.ledger import Ledger
from v2v.copy.progress import Progress, Standing
from v2v.copy.sinks import FileSink, NbdSink, NullSink
from v2v.endpoint import Endpoint
from v2v.errors import Cancelled, CopyError
from v2v.extents import Extent, ExtentMap
from v2v.job import CopyOptions
from v2v.run import Run
from v2v.types import DiskFormat, KiB, MiB

SIZE = 8 * MiB


@pytest.fixture(autouse=True)
def tools(need_tool) -> None:
    need_tool("nbdkit")
    need_tool("qemu-nbd")


@contextmanager
def serving(run: Run, *words: str, filters: tuple[str, ...] = ()) -> Iterator[Endpoint]:
    with nbdkit.serve(words[0], words[1:], run=run, name="source", filters=filters) as socket:
        yield nbd_client.describe(socket)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    chance = random.Random(1)
    with path.open("wb") as file:
        file.truncate(SIZE)
        for offset in (0, 1 * MiB, 1 * MiB + 300 * KiB, 5 * MiB - 4 * KiB, SIZE - 8 * KiB):
            file.seek(offset)
            file.write(chance.randbytes(min(200 * KiB, SIZE - offset)))
    return path


class Recorder(NullSink):
    """Remembers the calls; can be told to be slow at nothing but to know what it was asked."""

    def __init__(self, *, request_size: int | None = None, is_zero: bool = True) -> None:
        super().__init__(request_size=request_size)
        self.is_zero = is_zero
        self.writes: list[tuple[int, int]] = []
        self.zeroes: list[tuple[int, int]] = []
        self.flushes = 0
        self.content = bytearray(SIZE)

    def write(self, offset: int, buffer: memoryview) -> None:
        self.writes.append((offset, len(buffer)))
        self.content[offset : offset + len(buffer)] = buffer

    def zero(self, offset: int, length: int) -> None:
        self.zeroes.append((offset, length))

    def flush(self) -> None:
        self.flushes += 1


def copy(endpoint: Endpoint, sink, **options):
    return copied(endpoint, sink, **options)[0]


def test_data_arrives_and_holes_are_not_read(run, image) -> None:
    """Reading a hole is an error here."""
    hole = 6 * MiB
    with serving(run, "file", str(image)) as plain:
        extents = list(nbd_client.extents(plain))
    assert any(e.zero and e.offset <= hole < e.end for e in extents)
    log = run.folder / "requests"
    sink = Recorder(request_size=256 * KiB)
    sink.zero_grain = 4 * KiB
    with serving(run, "file", str(image), f"logfile={log}", filters=("log",)) as endpoint:
        result = copy(endpoint, sink)
    assert bytes(sink.content) == image.read_bytes()
    reads = _reads(log)
    assert sum(count for _, count in reads) == result.data == sum(n for _, n in sink.writes)
    assert all(offset + count <= hole or offset >= 7 * MiB for offset, count in reads)
    assert result.size == SIZE
    assert result.zero == SIZE - result.data
    assert sink.flushes == 1
    assert sink.zeroes == []


def _reads(log: Path) -> list[tuple[int, int]]:
    import re

    found = re.findall(r" Read id=\d+ offset=(0x[0-9a-f]+) count=(0x[0-9a-f]+)", log.read_text())
    return [(int(offset, 16), int(count, 16)) for offset, count in found]


def test_requests_are_the_sinks_and_reads_the_sources(run) -> None:
    log = run.folder / "requests"
    words = ("pattern", str(SIZE), f"logfile={log}")
    sink = Recorder(request_size=2 * MiB)
    with serving(run, *words, filters=("log",)) as endpoint:
        copy(replace(endpoint, maximum_block=512 * KiB), sink)
    assert sorted(sink.writes) == [(offset, 2 * MiB) for offset in range(0, SIZE, 2 * MiB)]
    assert {count for _, count in _reads(log)} == {512 * KiB}
    assert sink.content[8:16] == (8).to_bytes(8, "big")


def test_what_no_read_covers_is_zero_though_memory_is_used_again(run, tmp_path) -> None:
    """Blocks full of data, then blocks that hold data in their middle only."""
    image = tmp_path / "source"
    block = 64 * KiB
    with image.open("wb") as file:
        file.truncate(SIZE)
        file.write(b"\xff" * (SIZE // 2))
        for offset in range(SIZE // 2, SIZE, block):
            file.seek(offset + 8 * KiB)
            file.write(b"\xee" * 4 * KiB)
    sink = Recorder(request_size=block)
    sink.alignment = block
    with serving(run, "file", str(image)) as endpoint:
        result = copy(endpoint, sink)
    assert bytes(sink.content) == image.read_bytes()
    assert set(sink.writes) == {(offset, block) for offset in range(0, SIZE, block)}
    assert result.data < SIZE * 3 // 4


def test_zeroes_that_were_read_are_not_written(run, tmp_path) -> None:
    image = tmp_path / "source"
    image.write_bytes(b"\x01" * MiB + bytes(2 * MiB) + b"\x02" * MiB)
    sink = Recorder(request_size=4 * MiB)
    with serving(run, "file", str(image), filters=("noextents",)) as endpoint:
        result = copy(endpoint, sink)
    assert sorted(sink.writes) == [(0, MiB), (3 * MiB, MiB)]
    assert (result.data, result.found_zero) == (4 * MiB, 2 * MiB)


def test_an_ordered_sink_is_written_from_start_to_end_by_one_thread(run, image) -> None:
    class Ordered(Recorder):
        ordered = True
        threads: set[int] = set()  # noqa: RUF012

        def write(self, offset: int, buffer: memoryview) -> None:
            self.threads.add(threading.get_ident())
            super().write(offset, buffer)

    sink = Ordered(request_size=64 * KiB)
    with serving(run, "file", str(image)) as endpoint:
        copy(endpoint, sink)
    assert bytes(sink.content) == image.read_bytes()
    assert sink.writes == sorted(sink.writes)
    assert len(sink.threads) == 1


def test_a_target_that_is_not_zero_is_zeroed(run, image, tmp_path) -> None:
    target = tmp_path / "target"
    target.write_bytes(os.urandom(SIZE))
    with serving(run, "file", str(image)) as endpoint, target.open("r+b") as file:
        copy(endpoint, FileSink(file.fileno(), request_size=None, is_zero=False))
    assert target.read_bytes() == image.read_bytes()
    assert target.stat().st_blocks * 512 < SIZE


def test_from_nbd_to_nbd(run, image, tmp_path) -> None:
    target = tmp_path / "target.qcow2"
    qemu_img.create(target, DiskFormat.QCOW2, SIZE)
    options = qemu_nbd.image_options(target, DiskFormat.QCOW2)
    with (
        serving(run, "file", str(image)) as endpoint,
        qemu_nbd.serve(options, run=run, name="target", read_only=False) as socket,
    ):
        sink = NbdSink(
            nbd_client.describe(socket, read_only=False), request_size=64 * KiB, is_zero=False
        )
        sink.write(6 * MiB, memoryview(b"\xff" * 4096))
        copy(endpoint, sink)
        sink.close()
        back = Recorder()
        copy(nbd_client.describe(socket), back)
    assert bytes(back.content) == image.read_bytes()


def test_a_write_error_names_disk_and_range(run) -> None:
    with (
        serving(run, "pattern", str(SIZE)) as endpoint,
        Path("/dev/full").open("wb") as full,
        pytest.raises(CopyError) as error,
    ):
        copy(endpoint, FileSink(full.fileno(), request_size=8 * MiB, is_zero=True))
    assert error.value.id == "target-full"
    assert error.value.message == "disk 1: cannot write bytes 0 to 8388607: No space left on device"
    assert "v2v resume" in (error.value.hint or "")


def test_cancelled_before_it_began(run, image) -> None:
    cancel = Cancel()
    cancel.cancel()
    sink = Recorder()
    with serving(run, "file", str(image)) as endpoint, pytest.raises(Cancelled):
        copy(endpoint, sink, cancel=cancel)
    assert sink.writes == []


def test_progress_knows_the_total_and_ends_with_everything(run, image) -> None:
    told: list[Standing] = []
    with serving(run, "file", str(image)) as endpoint:
        sharing = Shared(CopyOptions(), cancel=Cancel(), progress=Progress(told.append))
        result = copy_disk(0, endpoint, NullSink(), sharing)
        assert measure(endpoint).data == result.data
    assert {standing.total for standing in told} == {result.data}
    assert told[-1].done == result.data


def test_memory_is_bounded(run) -> None:
    class Sizes(NullSink):
        buffers: dict[int, int] = {}  # noqa: RUF012

        def write(self, offset: int, buffer: memoryview) -> None:
            self.buffers[id(buffer.obj)] = len(buffer.obj)

    sink = Sizes(request_size=1024 * MiB)
    with serving(run, "memory", "1G") as endpoint:
        assert copy(endpoint, sink).data == 0
    with serving(run, "pattern", "256M") as endpoint:
        copy(endpoint, sink)
    assert 0 < sum(sink.buffers.values()) <= engine.MEMORY


def test_a_file_is_copied_by_the_kernel(run, image, tmp_path) -> None:
    target = tmp_path / "target"
    with target.open("w+b") as file, serving(run, "file", str(image)) as endpoint:
        file.truncate(SIZE)
        sink = FileSink(file.fileno(), request_size=None, is_zero=True)
        result = copy(replace(endpoint, file=image), sink)
    assert target.read_bytes() == image.read_bytes()
    assert result.by_kernel == result.data
    assert target.stat().st_blocks <= image.stat().st_blocks + 64


def test_what_the_kernel_cannot_copy_is_read_and_written_and_told(run, image, tmp_path) -> None:
    """A file on another kind of filesystem."""
    fd = os.memfd_create("v2v-test")
    try:
        os.truncate(fd, SIZE)
        with serving(run, "file", str(image)) as endpoint:
            sink = FileSink(fd, request_size=None, is_zero=True)
            result = copy(replace(endpoint, file=image), sink)
        assert os.pread(fd, SIZE, 0) == image.read_bytes()
    finally:
        os.close(fd)
    assert result.by_kernel == 0
    assert any("copy_file_range" in note for note in result.notes)


@pytest.mark.parametrize("block", [1, 512])
def test_many_extents_take_little_memory_of_their_own(tmp_path: Path, block: int) -> None:
    """Though some were copied before, and none of the others by the kernel."""
    many = 40_000
    path = tmp_path / "source"
    with path.open("wb") as file:
        file.truncate(many * 4 * KiB)
    extents = ExtentMap(Extent(i * 4 * KiB, 4 * KiB, zero=i % 2 == 1) for i in range(many))
    disk = Endpoint(uri="", size=extents.size, file=path, minimum_block=block)
    ledger = Ledger(None)
    ledger.record("source", [Extent(0, 64 * KiB)])
    tracemalloc.start()
    try:
        job = DiskCopy(0, disk.size, NullSink(request_size=64 * KiB), shared(), ledger=ledger)
        job.copy(disk, extents)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert job.finish().data == (many // 2 - 8) * 4 * KiB
    assert peak < 3 * MiB  # an Extent takes 128 bytes


def test_a_pass_leaves_alone_what_it_is_not_told_of(run, image, tmp_path) -> None:
    before = os.urandom(SIZE)
    target = tmp_path / "target"
    target.write_bytes(before)
    with serving(run, "file", str(image)) as endpoint, target.open("r+b") as file:
        sink = FileSink(file.fileno(), request_size=128 * KiB, is_zero=False)
        job = DiskCopy(0, SIZE, sink, shared())
        job.copy(endpoint, [Extent(MiB, MiB), Extent(5 * MiB, MiB, zero=True)])
        job.finish()
    expected = bytearray(before)
    expected[MiB : 2 * MiB] = image.read_bytes()[MiB : 2 * MiB]
    expected[5 * MiB : 6 * MiB] = bytes(MiB)
    assert target.read_bytes() == expected


def test_a_later_pass_zeroes_what_an_earlier_one_wrote(run, image) -> None:
    """The target was blank, so that nothing else needs zeroing."""
    sink = Recorder(request_size=128 * KiB)
    with serving(run, "file", str(image)) as endpoint:
        job = DiskCopy(0, SIZE, sink, shared())
        job.copy(endpoint, [Extent(0, 2 * MiB)])
        job.copy(endpoint, [Extent(MiB, 2 * MiB, zero=True)], phase="overlay")
        result = job.finish()
    assert sink.zeroes == [(MiB, MiB)]
    assert result.data == 2 * MiB


def test_what_the_ledger_has_is_not_copied_again(run, image, tmp_path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    ledger.record("source", [Extent(0, 3 * MiB)])
    sink = Recorder(is_zero=False)
    with serving(run, "file", str(image)) as endpoint:
        result = copy(endpoint, sink, ledger=ledger)
    assert min(offset for offset, _ in sink.writes + sink.zeroes) >= 3 * MiB
    assert result.resumed == 3 * MiB
    assert Ledger(tmp_path / "ledger").done("source").covers(0, SIZE)


@pytest.mark.parametrize("heals", [True, False])
def test_a_target_that_spoils_what_it_is_given(run, image, heals) -> None:
    """What differs is written once more; when that does not help the copy fails."""

    class Spoiling(Recorder):
        spoils = True

        def write(self, offset: int, buffer: memoryview) -> None:
            super().write(offset, buffer)
            if offset == MiB and self.spoils:
                self.content[offset + 5] ^= 1
                self.spoils = not heals

        def read_back(self, offset: int, buffer: memoryview) -> None:
            buffer[:] = self.content[offset : offset + len(buffer)]

        def extents(self):
            return iter([Extent(0, SIZE)])

    sink = Spoiling(request_size=MiB)
    digests = Digests(None, SIZE)
    with serving(run, "file", str(image)) as endpoint:
        if heals:
            result = copy(endpoint, sink, digests=digests, verify=1.0)
            assert bytes(sink.content) == image.read_bytes()
            assert result.verified == 1.0
            assert result.retries == 1
            assert any("differed when read back" in note for note in result.notes)
        else:
            with pytest.raises(CopyError) as error:
                copy(endpoint, sink, digests=digests, verify=1.0)
            assert error.value.id == "verify-mismatch"
            assert f"bytes {CHUNK} to {2 * CHUNK - 1}" in error.value.message
    digests.close()


def test_an_empty_disk(run) -> None:
    with serving(run, "memory", "0") as endpoint:
        assert copy(endpoint, NullSink()).size == 0


def test_a_gentle_copy_has_little_in_flight_until_it_may_go_on(run, monkeypatch) -> None:
    """Someone else needs the source: each of two connections asks for one unit at a time."""
    gentle = threading.Event()
    gentle.set()
    asked: list[int] = []
    fetch = Fetcher.fetch

    def counted(self, filling) -> None:
        fetch(self, filling)
        if gentle.is_set():
            asked.append(self.flying)

    class Ending(NullSink):
        def write(self, offset: int, buffer: memoryview) -> None:
            if offset >= 4 * MiB:
                gentle.clear()

    monkeypatch.setattr(Fetcher, "fetch", counted)
    with serving(run, "pattern", str(SIZE)) as endpoint:
        sharing = Shared(
            CopyOptions(connections=2, requests=16),
            cancel=Cancel(),
            progress=Progress(lambda standing: None),
            gently=gentle.is_set,
        )
        result = copy_disk(0, endpoint, Ending(request_size=256 * KiB), sharing)
    assert result.data == SIZE
    assert set(asked) == {1}
