"""Writing to NBD servers: whole ones, picky ones, lost ones and silent ones."""

from __future__ import annotations

import errno
import os
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.fakes import nbd_server
from tests.fakes.nbd_server import Act, NbdServer
from tests.fakes.nbd_wire import Command
from tests.places import stopped
from v2v import nbd_client, nbdkit, process, qemu_img, qemu_nbd
from v2v.cancel import Cancel
from v2v.copy.sinks import NbdSink, SinkLost, _pool
from v2v.copy.sinks.nbd import STALL
from v2v.errors import Cancelled
from v2v.extents import Extent, data_bytes
from v2v.run import Run
from v2v.types import DiskFormat, KiB, MiB

SIZE = 3 * MiB
FULL = b"\xff" * SIZE


@pytest.fixture(autouse=True)
def tools(need_tool) -> None:
    for tool in ("nbdkit", "qemu-nbd", "qemu-img"):
        need_tool(tool)


def noise(seed: int, length: int) -> memoryview:
    return memoryview(random.Random(seed).randbytes(length))


@contextmanager
def sink_at(server: Path, **options) -> Iterator[NbdSink]:
    sink = NbdSink(
        nbd_client.describe(server, read_only=False), request_size=None, is_zero=False, **options
    )
    try:
        yield sink
    finally:
        sink.hang_up()


@contextmanager
def nbdkit_sink(
    run: Run, params: Sequence[str], filters: Sequence[str] = (), plugin: str = "memory", **options
) -> Iterator[NbdSink]:
    with (
        nbdkit.serve(plugin, params, run=run, name="t", filters=filters, read_only=False) as server,
        sink_at(server, **options) as sink,
    ):
        yield sink


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NbdServer]:
    monkeypatch.setattr(_pool, "MORE_SECONDS", 60.0)  # it takes all, however busy the machine is
    with nbd_server.serve(tmp_path, FULL) as server:
        yield server


def found(sink: NbdSink, offset: int = 0, length: int = SIZE) -> bytes:
    view = memoryview(bytearray(length))
    sink.read_back(offset, view)
    return bytes(view)


def fill(sink: NbdSink) -> None:
    for offset in range(0, SIZE, sink.max_request):
        sink.write(offset, memoryview(FULL)[offset : offset + sink.max_request])


# Writing


CELL = 16 * KiB


def write_cell(sink: NbdSink, number: int) -> None:
    if number % 3:
        sink.write(number * CELL, noise(number, CELL))
    else:
        sink.zero(number * CELL, CELL)


def cells() -> bytes:
    parts = [noise(n, CELL) if n % 3 else bytes(CELL) for n in range(SIZE // CELL)]
    return b"".join(parts)


def check_threads(sink: NbdSink, threads: int) -> None:
    fill(sink)
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda number: write_cell(sink, number), range(SIZE // CELL)):
            pass
    sink.flush()
    assert found(sink) == cells()


def test_many_threads_write_to_nbdkit(run: Run) -> None:
    with nbdkit_sink(run, ["3M"]) as sink:
        assert sink.workers == 8
        check_threads(sink, 8)


def test_more_threads_than_connections_wait_for_one(run: Run) -> None:
    with nbdkit_sink(run, ["3M", "multi-conn-mode=disable"], ["multi-conn"]) as sink:
        assert sink.workers == 1
        check_threads(sink, 4)


def test_many_threads_write_to_qemu(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    qemu_img.create(path, DiskFormat.QCOW2, SIZE)
    image = qemu_nbd.image_options(path, DiskFormat.QCOW2)
    with (
        qemu_nbd.serve(image, run=run, name="q", read_only=False, discard=True) as server,
        sink_at(server) as sink,
    ):
        assert sink.workers == 8
        check_threads(sink, 8)


def test_connections_are_opened_as_threads_ask_for_them(fake: NbdServer) -> None:
    fake.multi_conn = True
    with sink_at(fake.path) as sink:
        before = fake.accepted
        for number in range(5):
            sink.write(number, memoryview(b"x"))
        assert fake.accepted == before + 1  # the first one only flushes
        with ThreadPoolExecutor(20) as threads:
            for _ in threads.map(lambda at: sink.write(at, memoryview(b"x")), range(500)):
                pass
        sink.flush()
        assert before + 1 <= fake.accepted <= before + sink.workers


def test_the_last_block_of_a_rounded_export_is_filled_up(run: Run) -> None:
    with nbdkit_sink(run, ["128K"], alignment=64 * KiB) as sink:
        sink.write(64 * KiB, noise(1, 64 * KiB))
        sink.write(64 * KiB, memoryview(b"\xff" * 512))
        assert found(sink, 64 * KiB, 64 * KiB) == (b"\xff" * 512).ljust(64 * KiB, b"\0")


def test_an_export_that_is_not_rounded_is_not_overrun(run: Run) -> None:
    with nbdkit_sink(run, [str(64 * KiB + 512)], alignment=64 * KiB) as sink:
        sink.write(64 * KiB, memoryview(b"\xff" * 512))
        sink.zero(0, 64 * KiB + 512)
        assert found(sink, 64 * KiB, 512) == bytes(512)


def test_blocks_of_a_server_are_kept_to(run: Run) -> None:
    """A disk of 3 MiB - 512 in an export of 4 KiB blocks, which takes 64 KiB at most."""
    params = ["3M", "blocksize-minimum=4K", "blocksize-preferred=4K", "blocksize-maximum=64K"]
    params.append("blocksize-error-policy=error")
    cell, last, end = 48 * KiB, SIZE - 48 * KiB, SIZE - 512
    with nbdkit_sink(run, params, ["blocksize-policy"], alignment=cell) as sink:
        assert (sink.alignment, sink.max_request) == (cell, cell)
        fill(sink)
        sink.write(last, noise(1, end - last))
        assert found(sink, cell, end - cell) == FULL[2 * cell :] + bytes(noise(1, end - last))
        assert found(sink, last, cell)[-512:] == bytes(512)
        sink.zero(16 * cell, end - 16 * cell)
        assert found(sink) == FULL[: 16 * cell].ljust(SIZE, b"\0")


# Zeroes


@pytest.mark.parametrize("sparse", [True, False])
def test_zeroes_are_holes_if_sparse(run: Run, tmp_path: Path, sparse: bool) -> None:
    path = tmp_path / "disk"
    path.write_bytes(FULL)
    blocks = path.stat().st_blocks
    with nbdkit_sink(run, [f"file={path}"], plugin="file", sparse=sparse) as sink:
        sink.zero(MiB, MiB)
        sink.flush()
    assert path.read_bytes() == FULL[:MiB] + bytes(MiB) + FULL[: SIZE - 2 * MiB]
    assert (path.stat().st_blocks < blocks) == sparse


def test_zeroing_an_export_without_that_command(run: Run) -> None:
    with nbdkit_sink(run, ["3M", "zeromode=none"], ["nozero"]) as sink:
        fill(sink)
        sink.zero(1 * MiB, 1 * MiB + 512)
        assert found(sink) == FULL[:MiB] + bytes(MiB + 512) + FULL[: MiB - 512]


def test_a_server_that_refuses_to_zero_is_sent_zeroes(fake: NbdServer) -> None:
    refusals = fake.fault(Act.ERROR, Command.ZERO, error=errno.EOPNOTSUPP)
    with sink_at(fake.path) as sink:
        sink.zero(MiB, MiB + 512)
        sink.zero(0, 512)
    assert fake.content == bytes(512) + FULL[512:MiB] + bytes(MiB + 512) + FULL[: MiB - 512]
    assert refusals.met == 1


def test_a_server_that_refuses_long_zeroes_is_asked_for_short_ones(fake: NbdServer) -> None:
    fake.blocks = (512, 4096, 256 * KiB)
    fake.fault(Act.ERROR, Command.ZERO, error=errno.EINVAL, times=1)
    with sink_at(fake.path) as sink:
        sink.zero(0, SIZE)
    assert not any(fake.content)
    assert set(fake.asked(Command.ZERO)[1:]) == {
        (offset, 256 * KiB) for offset in range(0, SIZE, 256 * KiB)
    }


def test_a_server_that_writes_its_zeroes_is_not_silent_for_long(run: Run) -> None:
    """It is asked for no more at once than it writes in time at 2 MiB/s."""
    log = run.folder / "requests"
    with nbdkit_sink(run, ["512M", f"logfile={log}"], ["log"]) as sink:
        sink.zero(0, 512 * MiB)
    found = re.findall(r" Zero id=\d+ offset=0x[0-9a-f]+ count=(0x[0-9a-f]+)", log.read_text())
    asked = [int(count, 16) for count in found]
    assert sum(asked) == 512 * MiB
    assert max(asked) <= 2 * MiB * STALL


def test_huge_ranges_are_zeroed_in_pieces(run: Run) -> None:
    with nbdkit_sink(run, ["1T"]) as sink:
        sink.write(5 << 30, noise(1, MiB))
        sink.zero(1 << 30, 9 << 30)
        assert found(sink, 5 << 30, MiB) == bytes(MiB)


# Refusals


def test_errors_of_a_server_keep_their_number(run: Run, tmp_path: Path) -> None:
    trigger = tmp_path / "fail"
    trigger.touch()
    params = ["3M", "error-pwrite-rate=100%", "error-pwrite=ENOSPC"]
    with nbdkit_sink(run, [*params, f"error-pwrite-file={trigger}"], ["error"]) as sink:
        with pytest.raises(OSError, match="No space left") as error:
            sink.write(0, noise(1, 512))
        assert error.value.errno == errno.ENOSPC
        assert error.value.strerror and not isinstance(error.value, SinkLost)
        trigger.unlink()
        sink.write(0, noise(1, 512))  # the connection is as good as before
        assert found(sink, 0, 512) == noise(1, 512)


@pytest.mark.parametrize(
    ("command", "call"),
    [
        (Command.WRITE, lambda sink: sink.write(0, noise(1, 512))),
        (Command.ZERO, lambda sink: sink.zero(0, 512)),
        (Command.FLUSH, lambda sink: sink.flush()),
        (Command.READ, lambda sink: found(sink, 0, 512)),
    ],
)
def test_refusals_are_told_and_overcome(fake: NbdServer, command, call) -> None:
    fake.fault(Act.ERROR, command, error=errno.EPERM, times=1)
    with sink_at(fake.path) as sink:
        with pytest.raises(PermissionError):
            call(sink)
        call(sink)


def test_a_server_that_says_it_ends_is_lost(run: Run) -> None:
    params = ["3M", "error-pwrite-rate=100%", "error-pwrite=ESHUTDOWN"]
    with nbdkit_sink(run, params, ["error"]) as sink, pytest.raises(SinkLost):
        sink.write(0, noise(1, 512))


# Lost


def pid_of(server: Path) -> int:
    return int((server.parent / "pid").read_text())


@contextmanager
def another_server(run: Run, server: Path) -> Iterator[None]:
    """On the socket of one that was killed."""
    server.unlink()
    pid_file, log_file = server.parent / "pid2", run.folder / "log" / "another.log"
    argv = ["nbdkit", "--foreground", "--pidfile", str(pid_file), "--unix", str(server)]
    with process.server([*argv, "memory", "3M"], log_file=log_file) as program:
        process.wait_until_ready(pid_file, program, log_file, cancel=run.cancel)
        yield


def test_a_server_that_dies_in_a_write_is_lost_until_reopened(run: Run) -> None:
    params = [
        "get_size=echo 3M",
        "pread=dd if=/dev/zero bs=$3 count=1",
        "pwrite=kill -9 $PPID",
        "can_multi_conn=exit 0",
    ]
    with (
        nbdkit.serve("eval", params, run=run, name="t", read_only=False) as server,
        sink_at(server) as sink,
    ):
        assert sink.workers == 8
        with pytest.raises(SinkLost, match="went away"):
            sink.write(0, noise(1, MiB))
        with pytest.raises(SinkLost):
            sink.reopen()
        with another_server(run, server):
            for call in (lambda: sink.write(0, noise(1, MiB)), sink.flush, lambda: found(sink)):
                with pytest.raises(SinkLost):  # nobody may take the new server for the old one
                    call()
            sink.reopen()
            sink.write(0, noise(1, MiB))
            sink.flush()
            assert found(sink, 0, MiB) == noise(1, MiB)
            sink.close()  # a server that is told to end waits for its clients


def test_a_flush_is_not_answered_by_a_server_started_anew(fake: NbdServer) -> None:
    """Others have connections whose end they have not noticed; a new one would reach the new."""
    fake.multi_conn = True
    with sink_at(fake.path) as sink:
        sink.write(0, noise(1, MiB))
        with sink._pool.any():
            fake.restart()
            with pytest.raises(SinkLost):
                sink.flush()
        assert fake.durable == FULL


def test_every_thread_learns_that_the_server_is_lost(fake: NbdServer) -> None:
    fake.multi_conn = True
    with sink_at(fake.path) as sink, ThreadPoolExecutor(7) as threads:
        fake.fault(Act.STALL, Command.WRITE, end=SIZE // 2)
        fake.fault(Act.DROP, Command.WRITE, start=SIZE // 2)
        writes = [threads.submit(sink.write, n, noise(n, 1)) for n in range(sink.workers - 1)]
        fake.wait_until_stalled()
        with pytest.raises(SinkLost):
            sink.write(SIZE - 1, noise(1, 1))
        for write in writes:
            with pytest.raises(SinkLost):
                write.result()


def test_nobody_to_connect_to_is_lost(fake: NbdServer) -> None:
    endpoint = fake.endpoint(read_only=False)
    fake.stop()
    with pytest.raises(SinkLost, match="cannot connect"):
        NbdSink(endpoint, request_size=None, is_zero=True)
    fake.start()


# Silent


CALLS: list[Callable[[NbdSink], object]] = [
    lambda sink: sink.write(0, noise(1, MiB)),
    lambda sink: sink.zero(0, MiB),
    lambda sink: sink.flush(),
    lambda sink: found(sink),
    lambda sink: list(sink.extents()),
]


@pytest.mark.parametrize("call", CALLS, ids=["write", "zero", "flush", "read_back", "extents"])
def test_a_silent_server_is_lost_and_found_again(run: Run, monkeypatch, call) -> None:
    with (
        nbdkit.serve("memory", ["3M"], run=run, name="t", read_only=False) as server,
        sink_at(server) as sink,
    ):
        fill(sink)
        with stopped(pid_of(server)), monkeypatch.context() as impatient:
            impatient.setattr(sink, "_stall", 0.5)
            for connection in sink._pool._all:
                connection._stall = 0.5
            with pytest.raises(SinkLost, match=r"silent for|no answer within"):
                call(sink)
            with pytest.raises(SinkLost, match="no answer within"):
                sink.reopen()
        sink.reopen()
        call(sink)
        sink.flush()


@contextmanager
def trickling(server: Path, client: Path, before: Callable[[], None]) -> Iterator[None]:
    """A socket on the way to another; answers come in drops, each after a call of `before`."""

    def forward(source: socket.socket, target: socket.socket, *, answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(CELL):
                if answers:
                    before()
                target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                near, far = listener.accept()[0], socket.socket(socket.AF_UNIX)
                far.connect(str(server))
                for ends, answers in (((near, far), False), ((far, near), True)):
                    threading.Thread(
                        target=forward, args=ends, kwargs={"answers": answers}, daemon=True
                    ).start()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(client))
        listener.listen()
        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join()


PAUSE = 1.5 * nbd_client.POLL_MILLISECONDS / 1000


def test_a_slow_server_is_not_a_silent_one(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes longer than `stall` for all of an answer, but never so long for a part.

    Time passes with the drops only, however busy the machine is.
    """
    slow, length, now = threading.Event(), 20 * CELL, 0.0

    def before() -> None:
        nonlocal now
        if slow.is_set():
            time.sleep(PAUSE)
            now += 1.0

    monkeypatch.setattr(nbd_client, "time", SimpleNamespace(monotonic=lambda: now))
    with (
        nbdkit.serve("memory", ["3M"], run=run, name="t", read_only=False) as server,
        trickling(server, tmp_path / "slow", before),
        sink_at(tmp_path / "slow", stall=10.0) as sink,
    ):
        sink.write(0, noise(1, length))
        slow.set()
        assert found(sink, 0, length) == noise(1, length)


def test_extents_that_stall_are_lost(fake: NbdServer) -> None:
    fake.fault(Act.STALL, Command.EXTENTS)
    with sink_at(fake.path, stall=0.5) as sink, pytest.raises(SinkLost, match="silent"):
        list(sink.extents())


@pytest.mark.parametrize("command", [Command.WRITE, Command.FLUSH, Command.EXTENTS])
def test_cancelling_does_not_wait_for_the_server(fake: NbdServer, command) -> None:
    cancel = Cancel()
    fake.fault(Act.STALL, command)
    with sink_at(fake.path, cancel=cancel) as sink:
        calls = {
            Command.WRITE: lambda: sink.write(0, noise(1, MiB)),
            Command.FLUSH: sink.flush,
            Command.EXTENTS: lambda: list(sink.extents()),
        }
        with ThreadPoolExecutor(1) as threads:
            call = threads.submit(calls[command])
            fake.wait_until_stalled()
            cancel.cancel()
            with pytest.raises(Cancelled):
                call.result(timeout=30)


def test_cancelling_frees_those_who_wait_for_a_connection(fake: NbdServer) -> None:
    fake.multi_conn = False
    cancel = Cancel()
    fake.fault(Act.STALL, Command.WRITE)
    with sink_at(fake.path, cancel=cancel) as sink, ThreadPoolExecutor(3) as threads:
        calls = [threads.submit(sink.write, n, noise(n, 1)) for n in range(3)]
        fake.wait_until_stalled()
        cancel.cancel()
        for call in calls:
            with pytest.raises(Cancelled):
                call.result(timeout=30)


def test_reopening_hangs_up_on_those_who_still_wait(fake: NbdServer) -> None:
    fake.multi_conn = True
    fake.fault(Act.STALL, Command.WRITE)
    with sink_at(fake.path) as sink, ThreadPoolExecutor(1) as threads:
        call = threads.submit(sink.write, 0, noise(1, MiB))
        fake.wait_until_stalled()
        sink.reopen()
        with pytest.raises(SinkLost):
            call.result(timeout=30)
        sink.zero(MiB, MiB)  # the loss of an old connection is none of the new ones
        sink.flush()
    assert fake.durable[MiB : 2 * MiB] == bytes(MiB)


# Extents


def test_extents_of_the_target(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.touch()
    os.truncate(path, SIZE)
    with nbdkit_sink(run, [f"file={path}"], plugin="file") as sink:
        sink.write(MiB, noise(1, MiB))
        sink.flush()
        listed = list(sink.extents())
    assert listed[1] == Extent(MiB, MiB)
    assert data_bytes(listed) == MiB and listed[-1].end == SIZE


def test_nothing_works_once_it_is_closed(fake: NbdServer) -> None:
    with sink_at(fake.path) as sink:
        sink.write(0, noise(1, 512))
        sink.close()
        with pytest.raises(SinkLost):
            sink.write(0, noise(1, 512))


@pytest.mark.parametrize("shared", [1, 2, 3])
def test_a_server_that_takes_few_clients_is_written_with_those(
    tmp_path: Path, run: Run, need_tool, shared: int
) -> None:
    """A qemu-nbd lets whoever comes after the last of its clients wait for ever."""
    need_tool("qemu-nbd")
    target = tmp_path / "target"
    with target.open("wb") as file:
        file.truncate(16 * MiB)
    image = qemu_nbd.image_options(target, DiskFormat.RAW)
    with qemu_nbd.serve(image, run=run, name="few", read_only=False, shared=shared) as socket:
        endpoint = nbd_client.describe(socket, read_only=False)
        sink = NbdSink(endpoint, request_size=None, is_zero=True, stall=20.0)
        data = bytes(range(256)) * (MiB // 256)
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda n: sink.write(n * MiB, memoryview(data)), range(16)))
        sink.flush()
        sink.close()
    assert target.read_bytes() == data * 16
