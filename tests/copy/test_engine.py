"""The copy engine between real servers and real files."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from v2v import nbd_client, nbdkit, qemu_img, qemu_nbd
from v2v.cancel import Cancel
from v2v.copy import engine
from v2v.copy.engine import copy_disk, measure
from v2v.copy.sinks import FileSink, NbdSink, NullSink
from v2v.endpoint import Endpoint
from v2v.errors import Cancelled, CopyError
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


def copy(endpoint: Endpoint, sink, cancel: Cancel | None = None, progress=lambda *_: None):
    return copy_disk(0, endpoint, sink, cancel=cancel or Cancel(), progress=progress)


def test_data_arrives_and_holes_are_not_read(run, image) -> None:
    """Reading a hole is an error here."""
    hole = 6 * MiB
    with serving(run, "file", str(image)) as plain:
        extents = list(nbd_client.extents(plain))
    assert any(e.zero and e.offset <= hole < e.end for e in extents)
    log = run.folder / "requests"
    sink = Recorder(request_size=256 * KiB)
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
    assert SIZE // 2 // block > engine.IN_FLIGHT
    sink = Recorder(request_size=block)
    sink.alignment = block
    with serving(run, "file", str(image)) as endpoint:
        result = copy(endpoint, sink)
    assert bytes(sink.content) == image.read_bytes()
    assert set(sink.writes) == {(offset, block) for offset in range(0, SIZE, block)}
    assert result.data < SIZE * 3 // 4


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


def test_a_read_error_names_disk_and_range(run) -> None:
    words = ("pattern", str(SIZE), "error-pread-rate=100%", "error-pread=EIO")
    with serving(run, *words, filters=("error",)) as endpoint, pytest.raises(CopyError) as error:
        copy_disk(
            2, endpoint, NullSink(request_size=SIZE), cancel=Cancel(), progress=lambda *_: None
        )
    assert error.value.id == "copy-read"
    assert error.value.message == (f"disk 3: cannot read bytes 0 to {SIZE - 1}: Input/output error")


def test_a_server_that_dies_is_a_read_error(run, tmp_path) -> None:
    """The first write ends the server under the reads that follow."""
    from v2v import process

    pid_file, socket = run.tmp / "pid", run.tmp / "dying"
    argv = ["nbdkit", "-f", "-P", str(pid_file), "-U", str(socket), "pattern", "1G"]
    log = tmp_path / "log"
    with process.server(argv, log_file=log) as server:
        process.wait_until_ready(pid_file, server, log, cancel=run.cancel)

        class Killer(NullSink):
            def write(self, offset: int, buffer: memoryview) -> None:
                server.kill()
                server.wait()

        with pytest.raises(CopyError) as error:
            copy(nbd_client.describe(socket), Killer())
    assert error.value.id == "copy-read"


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


def test_cancel_interrupts_a_source_that_does_not_answer(run) -> None:
    """The reads would take an hour; the copy is cancelled once it has begun."""
    words = ("pattern", str(SIZE), "delay-read=3600", "logfile=" + str(run.folder / "requests"))
    cancel = Cancel()

    def cancel_when_reading() -> None:
        log = run.folder / "requests"
        while not (log.exists() and " Read " in log.read_text()):
            threading.Event().wait(0.01)
        cancel.cancel()

    thread = threading.Thread(target=cancel_when_reading)
    with nbdkit.serve(
        words[0], words[1:], run=run, name="source", filters=("log", "delay")
    ) as socket:
        endpoint = nbd_client.describe(socket)
        thread.start()
        with pytest.raises(Cancelled):
            copy(endpoint, NullSink(), cancel)
        thread.join()


def test_cancelled_before_it_began(run, image) -> None:
    cancel = Cancel()
    cancel.cancel()
    sink = Recorder()
    with serving(run, "file", str(image)) as endpoint, pytest.raises(Cancelled):
        copy(endpoint, sink, cancel)
    assert sink.writes == []


def test_progress_ends_with_everything(run, image, monkeypatch) -> None:
    told: list[tuple[int, int]] = []
    with serving(run, "file", str(image)) as endpoint:
        result = copy(endpoint, NullSink(), progress=lambda *words: told.append(words))
        assert measure(endpoint) == result.data
        assert told[-1] == (result.data, result.data)
        assert len(told) <= 2 + result.seconds / engine.PROGRESS_SECONDS
        monkeypatch.setattr(engine, "PROGRESS_SECONDS", 0.0)
        told.clear()
        copy(endpoint, NullSink(request_size=64 * KiB), progress=lambda *words: told.append(words))
    assert len(told) > 5
    assert told == sorted(told)


def test_memory_is_bounded(run) -> None:
    class Sizes(NullSink):
        buffers: set[int] = set()  # noqa: RUF012

        def write(self, offset: int, buffer: memoryview) -> None:
            self.buffers.add(id(buffer.obj))

    sink = Sizes(request_size=1024 * MiB)
    with serving(run, "memory", "1G") as endpoint:
        assert copy(endpoint, sink).data == 0
    with serving(run, "pattern", "256M") as endpoint:
        copy(endpoint, sink)
    assert len(sink.buffers) * (engine.MEMORY // 2) <= engine.MEMORY


def test_an_empty_disk(run) -> None:
    with serving(run, "memory", "0") as endpoint:
        assert copy(endpoint, NullSink()).size == 0
