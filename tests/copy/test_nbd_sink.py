"""Sinks over files and servers, where the engine's tests do not reach."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from v2v import nbd_client, nbdkit
from v2v.copy.sinks import FileSink, NbdSink, _fallocate
from v2v.types import KiB, MiB


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(b"\xff" * (3 * MiB))
    return path


def expected() -> bytes:
    return b"\xff" * MiB + bytes(MiB + 512) + b"\xff" * (MiB - 512)


@pytest.mark.parametrize("sparse", [True, False])
def test_zeroing_a_file(path: Path, sparse: bool) -> None:
    blocks = path.stat().st_blocks
    with path.open("r+b") as file:
        sink = FileSink(file.fileno(), request_size=None, is_zero=False, sparse=sparse)
        sink.zero(1 * MiB, 1 * MiB + 512)
        sink.flush()
    assert path.read_bytes() == expected()
    assert (path.stat().st_blocks < blocks) == sparse


def test_zeroing_where_the_filesystem_cannot(path: Path, monkeypatch) -> None:
    monkeypatch.setattr(_fallocate, "fallocate", lambda *_: False)
    with path.open("r+b") as file:
        FileSink(file.fileno(), request_size=None, is_zero=False).zero(1 * MiB, 1 * MiB + 512)
    assert path.read_bytes() == expected()


def test_fallocate_tells_what_cannot_be_done_from_errors() -> None:
    reading, writing = os.pipe()
    try:
        with pytest.raises(OSError, match="Illegal seek"):
            _fallocate.fallocate(writing, _fallocate.ZERO_RANGE, 0, 1)
    finally:
        os.close(reading)
        os.close(writing)


def test_zeroing_an_export_without_that_command(run, need_tool) -> None:
    need_tool("nbdkit")
    with nbdkit.serve(
        "memory", ["3M", "zeromode=none"], run=run, name="t", filters=("nozero",), read_only=False
    ) as socket:
        endpoint = nbd_client.describe(socket, read_only=False)
        sink = NbdSink(endpoint, request_size=None, is_zero=False)
        for offset in range(0, 3 * MiB, MiB):
            sink.write(offset, memoryview(b"\xff" * MiB))
        sink.zero(1 * MiB, 1 * MiB + 512)
        sink.flush()
        sink.close()
        assert bytes(nbd_client.connect(endpoint).pread(3 * MiB, 0)) == expected()


def test_the_last_block_of_a_rounded_export_is_filled_up(run, need_tool) -> None:
    need_tool("nbdkit")
    with nbdkit.serve("memory", ["128K"], run=run, name="t", read_only=False) as socket:
        endpoint = nbd_client.describe(socket, read_only=False)
        sink = NbdSink(endpoint, request_size=None, is_zero=True, alignment=64 * KiB)
        sink.write(64 * KiB, memoryview(b"\xff" * (64 * KiB)))
        sink.write(64 * KiB, memoryview(b"\xff" * 512))
        sink.close()
        assert bytes(nbd_client.connect(endpoint).pread(64 * KiB, 64 * KiB)) == (
            b"\xff" * 512
        ).ljust(64 * KiB, b"\0")


def test_errors_of_a_server_keep_their_number(run, need_tool) -> None:
    need_tool("nbdkit")
    words = ["1M", "error-pwrite-rate=100%", "error-pwrite=ENOSPC"]
    with nbdkit.serve(
        "memory", words, run=run, name="t", filters=("error",), read_only=False
    ) as socket:
        sink = NbdSink(
            nbd_client.describe(socket, read_only=False), request_size=None, is_zero=True
        )
        with pytest.raises(OSError, match="No space left") as error:
            sink.write(0, memoryview(bytes(512)))
        assert error.value.errno == 28
        assert error.value.strerror
        sink.hang_up()
