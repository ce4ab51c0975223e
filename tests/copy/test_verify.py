"""Reading a target back finds what differs from the source, and nothing else."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.copy.copying import Target, memory, nothing_left_over
from tests.fakes import nbd_server
from tests.fakes.nbd_server import Act, NbdServer
from tests.fakes.nbd_wire import Command
from v2v import nbd_client, nbdkit
from v2v.cancel import Cancel
from v2v.copy.digests import CHUNK, Digests
from v2v.copy.progress import Progress, Standing
from v2v.copy.sinks import FileSink, NbdSink, NullSink
from v2v.copy.verify import verify
from v2v.errors import Cancelled, CopyError
from v2v.extents import Extent, split
from v2v.run import Run
from v2v.types import KiB

TAIL = 1000  # bytes of the last chunk
SIZE = 10 * CHUNK + TAIL


class Watched(FileSink):
    """Tells what was read, by which threads, and how many at a time."""

    def __init__(self, target: Target, before: Callable[[int], None] = lambda offset: None) -> None:
        super().__init__(target.fd, request_size=None, is_zero=True, size=target.size)
        self.reads: list[Extent] = []
        self.threads: set[int] = set()
        self.most = 0
        self._now = 0
        self._before = before
        self._watch = threading.Lock()

    def read_back(self, offset: int, buffer: memoryview) -> None:
        with self._watch:
            self.reads.append(Extent(offset, len(buffer)))
            self.threads.add(threading.get_ident())
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            self._before(offset)
            super().read_back(offset, buffer)
        finally:
            with self._watch:
                self._now -= 1


def noise(size: int = SIZE) -> bytearray:
    return bytearray(random.Random(size).randbytes(size))


@contextmanager
def disk(content: bytes | bytearray) -> Iterator[tuple[Target, Digests]]:
    """A target with this content, whose zero chunks are holes, and the digests of it."""
    digests = Digests(None, len(content))
    with memory(len(content)) as target:
        for start in range(0, len(content), CHUNK):
            chunk = content[start : start + CHUNK]
            digests.put(start, memoryview(chunk))
            if any(chunk):
                os.pwrite(target.fd, chunk, start)
        try:
            yield target, digests
        finally:
            digests.close()


def check(sink, digests: Digests, *, fraction: float = 1.0, **more) -> list[Extent]:
    more = {"cancel": Cancel(), "meter": None, **more}
    return verify(sink, digests, digests.size, fraction=fraction, **more)


def spoil(target: Target, *offsets: int) -> None:
    for offset in offsets:
        (old,) = os.pread(target.fd, 1, offset)
        os.pwrite(target.fd, bytes([old ^ 1]), offset)


# What is found ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size", [0, 1, 1000, CHUNK - 1, CHUNK, CHUNK + 1, SIZE, 10 * CHUNK], ids=str
)
def test_a_good_target_is_good(size: int) -> None:
    with disk(noise(size)) as (target, digests):
        assert check(Watched(target), digests) == []


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([0], [Extent(0, CHUNK)]),
        ([CHUNK - 1], [Extent(0, CHUNK)]),
        ([CHUNK, 5 * CHUNK + 7], [Extent(CHUNK, CHUNK), Extent(5 * CHUNK, CHUNK)]),
        ([CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 5], [Extent(CHUNK, 3 * CHUNK)]),
        ([SIZE - 1], [Extent(10 * CHUNK, TAIL)]),
        ([9 * CHUNK, SIZE - TAIL], [Extent(9 * CHUNK, CHUNK + TAIL)]),
    ],
    ids=["first", "end", "two", "joined", "last", "joined-last"],
)
def test_a_wrong_byte_is_found(places: list[int], expected: list[Extent]) -> None:
    with disk(noise()) as (target, digests):
        spoil(target, *places)
        assert check(Watched(target), digests) == expected


def test_data_where_a_hole_should_be_is_found() -> None:
    content = noise()
    content[2 * CHUNK : 4 * CHUNK] = bytes(2 * CHUNK)
    with disk(content) as (target, digests):
        os.pwrite(target.fd, b"x", 3 * CHUNK + 100)
        assert check(Watched(target), digests) == [Extent(3 * CHUNK, CHUNK)]


@pytest.mark.parametrize("fraction", [1.0, 0.01])
def test_a_hole_where_data_should_be_is_found(fraction: float) -> None:
    """Holes cost nothing: all are looked at, however small the sample."""
    with disk(noise()) as (target, digests):
        sink = Watched(target)
        sink.zero(4 * CHUNK, 2 * CHUNK)
        for end in (10 * CHUNK, SIZE):  # the last chunk too
            os.truncate(target.fd, end)
        expected = [Extent(4 * CHUNK, 2 * CHUNK), Extent(10 * CHUNK, TAIL)]
        assert check(sink, digests, fraction=fraction) == expected
        assert all(read.offset not in (4 * CHUNK, 5 * CHUNK, 10 * CHUNK) for read in sink.reads)


def test_zeroes_that_were_written_are_as_good_as_a_hole() -> None:
    content = bytearray(SIZE)
    with disk(content) as (target, digests):
        os.pwrite(target.fd, bytes(SIZE), 0)
        sink = Watched(target)
        assert check(sink, digests) == []
        assert len(sink.reads) == 11


def test_a_target_that_keeps_nothing_differs_where_there_is_data() -> None:
    content = noise()
    content[: 9 * CHUNK] = bytes(9 * CHUNK)
    with disk(content) as (_, digests):
        assert check(NullSink(), digests) == [Extent(9 * CHUNK, CHUNK + TAIL)]


KINDS = st.sampled_from(["data", "hole", "written zeroes", "part", "wrong", "lost", "too much"])


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(kinds=st.lists(KINDS, min_size=1, max_size=8), tail=st.integers(1, CHUNK))
def test_exactly_what_differs_is_found(kinds: list[str], tail: int) -> None:
    size = (len(kinds) - 1) * CHUNK + tail
    content, found = bytearray(size), bytearray(size)
    holes, wrong = [], set()
    for number, kind in enumerate(kinds):
        start, end = number * CHUNK, min((number + 1) * CHUNK, size)
        data = random.Random(number).randbytes(end - start - 1) + b"x"
        if kind in ("data", "wrong", "lost"):
            content[start:end] = data
        if kind == "part":
            content[end - 1 : end] = found[end - 1 : end] = b"x"
        if kind in ("data", "too much"):
            found[start:end] = data
        if kind == "wrong":
            found[start:end] = data[:-1] + b"y"
        if kind in ("hole", "lost"):
            holes.append((start, end))
        if kind in ("wrong", "lost", "too much"):
            wrong.add(number)
    with disk(content) as (target, digests):
        sink = Watched(target)
        os.pwrite(target.fd, found, 0)
        for start, end in holes:
            sink.zero(start, end - start)
        differs = check(sink, digests)
    covered = {n for one in differs for n in range(one.offset // CHUNK, -(-one.end // CHUNK))}
    assert covered == wrong
    assert all(left.end < right.offset for left, right in pairwise(differs))


# What is read -------------------------------------------------------------------------------------


def test_holes_are_not_read() -> None:
    content = noise()
    content[3 * CHUNK : 9 * CHUNK] = bytes(6 * CHUNK)
    with disk(content) as (target, digests):
        sink = Watched(target)
        assert check(sink, digests) == []
        assert sorted(read.offset // CHUNK for read in sink.reads) == [0, 1, 2, 9, 10]


@pytest.mark.parametrize(
    ("start", "end"),
    [(100 * KiB, 200 * KiB), (0, 200 * KiB), (800 * KiB, CHUNK), (800 * KiB, CHUNK + 200 * KiB)],
)
def test_a_chunk_with_data_beside_a_hole_is_read(start: int, end: int) -> None:
    content = noise()
    content[3 * CHUNK + start : 3 * CHUNK + end] = bytes(end - start)
    with disk(content) as (target, digests):
        sink = Watched(target)
        sink.zero(3 * CHUNK + start, end - start)
        assert check(sink, digests) == []
        spoil(target, 3 * CHUNK + 500 * KiB, 4 * CHUNK + 500 * KiB)
        assert check(sink, digests) == [Extent(3 * CHUNK, 2 * CHUNK)]


def test_a_hole_that_is_told_in_parts_is_not_read() -> None:
    class InParts(Watched):
        def extents(self) -> Iterator[Extent]:
            for extent in super().extents():
                yield from split(extent, 300 * KiB)

    content = noise()
    content[3 * CHUNK : 9 * CHUNK] = bytes(6 * CHUNK)
    with disk(content) as (target, digests):
        sink = InParts(target)
        assert check(sink, digests) == []
        assert sorted(read.offset // CHUNK for read in sink.reads) == [0, 1, 2, 9, 10]


def test_a_sample_reads_a_part_of_the_chunks_once_each() -> None:
    with disk(noise()) as (target, digests):
        spoil(target, *range(0, SIZE, CHUNK))
        sink = Watched(target)
        differs = check(sink, digests, fraction=0.5)
        read = {read.offset // CHUNK for read in sink.reads}
        assert len(sink.reads) == len(read) == 6  # of 11
        covered = [n for one in differs for n in range(one.offset // CHUNK, -(-one.end // CHUNK))]
        assert covered == sorted(read)


def test_samples_are_chosen_at_random() -> None:
    with disk(noise()) as (target, digests):
        samples = set()
        for _ in range(30):  # all the same: once in 11 ** 29 times
            sink = Watched(target)
            check(sink, digests, fraction=0.001)
            assert len(sink.reads) == 1  # one at least
            samples.add(sink.reads[0].offset)
        assert len(samples) > 1


def test_only_some_ranges_are_looked_at() -> None:
    with disk(noise()) as (target, digests):
        spoil(target, 0, 5 * CHUNK, SIZE - 1)
        sink = Watched(target)
        sink.zero(2 * CHUNK, CHUNK)
        sink.zero(7 * CHUNK, CHUNK)
        only = [Extent(5 * CHUNK + 10, 1), Extent(7 * CHUNK, CHUNK), Extent(10 * CHUNK, TAIL)]
        assert check(sink, digests, only=only) == [
            Extent(5 * CHUNK, CHUNK),
            Extent(7 * CHUNK, CHUNK),
            Extent(10 * CHUNK, TAIL),
        ]
        assert sorted(read.offset // CHUNK for read in sink.reads) == [5, 10]
        assert check(sink, digests, only=[]) == []


def test_requests_keep_to_the_largest_one() -> None:
    with disk(noise()) as (target, digests):
        spoil(target, 7 * CHUNK + 300 * KiB)
        sink = Watched(target)
        sink.max_request = 64 * KiB
        assert check(sink, digests) == [Extent(7 * CHUNK, CHUNK)]
        assert max(read.length for read in sink.reads) == 64 * KiB
        assert sum(read.length for read in sink.reads) == SIZE


@pytest.mark.parametrize(("workers", "expected"), [(1, 1), (2, 2), (16, 4)])
def test_as_many_threads_as_the_sink_takes_and_at_most_four(workers: int, expected: int) -> None:
    """All of them read at once: each waits for the others."""
    meeting = threading.Barrier(expected, timeout=60)
    first = set(range(0, expected * CHUNK, CHUNK))
    with disk(noise()) as (target, digests), nothing_left_over():
        sink = Watched(target, lambda offset: meeting.wait() * 0 if offset in first else None)
        sink.workers = workers
        spoil(target, 3 * CHUNK)
        assert check(sink, digests) == [Extent(3 * CHUNK, CHUNK)]
        assert sink.most == len(sink.threads) == expected
        assert sorted(read.offset for read in sink.reads) == list(range(0, SIZE, CHUNK))


@pytest.mark.parametrize("fraction", [1.0, 0.5, 0.0])
def test_the_meter_counts_what_is_read(fraction: float) -> None:
    content = noise()
    content[: 4 * CHUNK] = bytes(4 * CHUNK)
    seen: list[Standing] = []
    with disk(content) as (target, digests):
        sink = Watched(target)
        check(sink, digests, fraction=fraction, meter=Progress(seen.append).meter(3))
        total = sum(read.length for read in sink.reads)
    assert (fraction == 1.0) == (total == 6 * CHUNK + TAIL)
    assert {(one.disk, one.phase, one.total) for one in seen} == {(3, "verify", total)}
    assert (seen[0].done, seen[-1].done) == (0, total)


# What goes wrong ----------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 4])
def test_cancelling_ends_it(workers: int) -> None:
    cancel = Cancel()
    with disk(noise()) as (target, digests), nothing_left_over():
        sink = Watched(target, lambda offset: cancel.cancel())
        sink.workers = workers
        with pytest.raises(Cancelled):
            check(sink, digests, cancel=cancel)
        assert 1 <= len(sink.reads) <= workers  # those that had begun


@pytest.mark.parametrize("workers", [1, 4])
def test_an_error_ends_it_and_names_the_range(workers: int) -> None:
    def fail(offset: int) -> None:
        if offset == 3 * CHUNK:
            raise OSError(5, "Input/output error")

    seen: list[Standing] = []
    with disk(noise()) as (target, digests), nothing_left_over():
        sink = Watched(target, fail)
        sink.workers = workers
        with pytest.raises(CopyError) as error:
            check(sink, digests, disk=1, meter=Progress(seen.append).meter(1))
    assert error.value.id == "verify-read" and error.value.hint
    assert "disk 2:" in error.value.message  # people count from 1
    assert f"bytes {3 * CHUNK} to {4 * CHUNK - 1}: Input/output error" in error.value.message
    assert seen[-1].done < seen[-1].total  # not told as complete


def test_after_an_error_nothing_more_is_read() -> None:
    meeting = threading.Barrier(2, timeout=60)
    failing: list[threading.Thread] = []

    def read(offset: int) -> None:
        if offset == 0:
            failing.append(threading.current_thread())
        meeting.wait()
        if offset == 0:
            raise OSError(5, "Input/output error")
        failing[0].join(60)  # it ends when the pool does

    with disk(noise()) as (target, digests), nothing_left_over():
        sink = Watched(target, read)
        sink.workers = 2
        with pytest.raises(CopyError):
            check(sink, digests)
        assert len(sink.reads) == 2


def test_a_target_that_shrank_cannot_be_read() -> None:
    with disk(noise()) as (target, digests):
        os.truncate(target.fd, 10 * CHUNK)
        with pytest.raises(CopyError, match=f"bytes {10 * CHUNK} to {SIZE - 1}") as error:
            check(Watched(target), digests)
        assert error.value.id == "verify-read"


def test_digests_of_another_disk_are_refused() -> None:
    with disk(noise()) as (target, digests), pytest.raises(ValueError):
        verify(Watched(target), digests, SIZE + CHUNK, fraction=1, cancel=Cancel(), meter=None)


# Behind NBD ---------------------------------------------------------------------------------------


@contextmanager
def nbd_sink(socket: Path, **options) -> Iterator[NbdSink]:
    endpoint = nbd_client.describe(socket, read_only=False)
    sink = NbdSink(endpoint, request_size=None, is_zero=True, **options)
    try:
        yield sink
    finally:
        sink.hang_up()


def test_a_target_behind_nbdkit(run: Run, need_tool, tmp_path: Path) -> None:
    need_tool("nbdkit")
    size = SIZE - TAIL + 512
    content = noise(size)
    content[CHUNK : 5 * CHUNK] = bytes(4 * CHUNK)
    file = tmp_path / "disk"
    file.write_bytes(b"")
    os.truncate(file, size)
    with (
        disk(content) as (_, digests),
        nbdkit.serve("file", [f"file={file}"], run=run, name="t", read_only=False) as socket,
        nbd_sink(socket) as sink,
    ):
        sink.write(0, memoryview(content)[:CHUNK])
        sink.write(5 * CHUNK, memoryview(content)[5 * CHUNK :])
        sink.flush()
        assert check(sink, digests) == []
        sink.write(size - 1, memoryview(bytes([content[-1] ^ 1])))
        sink.zero(6 * CHUNK, CHUNK)
        sink.flush()
        assert check(sink, digests) == [Extent(6 * CHUNK, CHUNK), Extent(10 * CHUNK, 512)]


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[NbdServer]:
    with nbd_server.serve(tmp_path, noise()) as server:
        yield server


def test_a_target_that_is_lost(fake: NbdServer) -> None:
    fake.fault(Act.KILL, skip=3)
    with (
        disk(noise()) as (_, digests),
        nbd_sink(fake.path) as sink,
        pytest.raises(CopyError) as error,
    ):
        check(sink, digests)
    assert error.value.id == "verify-read"


def test_a_server_that_keeps_something_else_is_found_out(fake: NbdServer) -> None:
    content = noise()
    fake.fault(Act.SPOIL, Command.WRITE, start=2 * CHUNK, end=3 * CHUNK)
    with disk(content) as (_, digests), nbd_sink(fake.path) as sink:
        for start in range(0, SIZE, CHUNK):
            sink.write(start, memoryview(content)[start : start + CHUNK])
        sink.flush()
        assert check(sink, digests) == [Extent(2 * CHUNK, CHUNK)]


def test_cancelling_does_not_wait_for_the_target(fake: NbdServer) -> None:
    cancel = Cancel()
    fake.fault(Act.STALL, skip=2)
    with (
        disk(noise()) as (_, digests),
        nbd_sink(fake.path, cancel=cancel) as sink,
        ThreadPoolExecutor(1) as pool,
    ):
        verifying = pool.submit(check, sink, digests, cancel=cancel)
        fake.wait_until_stalled()
        cancel.cancel()
        with pytest.raises(Cancelled):
            verifying.result(timeout=30)  # the server would be given up after 60
