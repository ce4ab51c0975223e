"""Uploading as tests do it: a disk in memory, a real daemon, and what it writes to."""

from __future__ import annotations

import os
import random
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.copy import copying
from tests.copy.copying import noise
from tests.fakes.nbd_server import NbdServer, serve
from tests.imageio import Daemon
from tests.places import nbd_servers
from v2v.cancel import Cancel
from v2v.copy.sinks import Feed
from v2v.endpoint import Endpoint
from v2v.outputs._ovirt import daemon as daemon_module
from v2v.outputs._ovirt.imageio import ImageioSink, imageio_sink
from v2v.outputs._ovirt.places import Transfer
from v2v.types import CopyResult, MiB

SIZE = 24 * MiB + 3 * 512
REQUEST = 2 * MiB


def holey(size: int, seed: int) -> bytearray:
    """Data, and holes of all lengths at odd places."""
    content, chance = noise(size, seed=seed), random.Random(seed)
    position = 0
    while position < size:
        position += chance.randrange(1, 3 * MiB)
        end = min(position + int(2 ** chance.uniform(9, 22)), size)
        content[position:end] = bytes(max(end - position, 0))
        position = end
    return content


@contextmanager
def source(content: bytearray) -> Iterator[NbdServer]:
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder), content) as server:
        server.extents = server.true_extents
        yield server


def copied(endpoint: Endpoint, sink: Any, **options: Any) -> tuple[CopyResult, bytes]:
    """From a source that is never taken for silent, however busy the machine is."""
    return copying.copied(endpoint, sink, **{"stall_timeout": 60.0, **options})


@contextmanager
def raw_target(daemon: Daemon, folder: Path, size: int) -> Iterator[tuple[Path, str]]:
    """A raw file, which takes one writer: its path, and its URL for a ticket."""
    path = folder / "target.raw"
    path.touch()
    os.truncate(path, size)
    yield path, f"file://{path}"


@contextmanager
def qcow2_target(daemon: Daemon, folder: Path, size: int) -> Iterator[tuple[Path, str]]:
    """A qcow2 image behind qemu-nbd, as on an oVirt host: several writers."""
    path, sock, ready = folder / "target.qcow2", daemon.folder / "nbd", daemon.folder / "nbd.pid"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, str(size)], check=True)
    argv = ["qemu-nbd", "--persistent", "--shared=20", "--format=qcow2", "--cache=writeback"]
    options = ["--discard=unmap", "--detect-zeroes=unmap", f"--socket={sock}"]
    with nbd_servers(daemon.folder) as servers:
        servers.start("nbd", [*argv, *options, f"--pid-file={ready}", path], ready)
        yield path, f"nbd:unix:{sock}"


def content_of(path: Path) -> bytes:
    """Of an image that nobody writes to."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        subprocess.run(["qemu-img", "convert", "-U", "-O", "raw", path, raw], check=True)
        return raw.read_bytes()


@contextmanager
def sink_to(transfer: Transfer, **options: Any) -> Iterator[ImageioSink]:
    usual = {"is_zero": True, "stall": 30.0, "cancel": Cancel(), "request_size": REQUEST}
    with imageio_sink(transfer, **{**usual, **options}) as sink:
        yield sink


def lose_patience(sink: ImageioSink) -> None:
    """From now on. To open it may take as long as a busy machine needs."""
    sink._stall = 0.3
    for connection in sink._pool._all:
        found = daemon_module._socket(connection._client)
        assert found is not None
        found.settimeout(sink._stall)


class Before:
    """A sink that calls `act` before the PUT number `at`, counted from 0, and never again."""

    def __init__(self, sink: ImageioSink, at: int, act: Callable[[], None]) -> None:
        self._sink = sink
        self._numbers = iter(range(1 << 30))
        self._at = at
        self._act = act

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sink, name)

    def write_from(self, reader: Feed, offset: int, length: int) -> None:
        if next(self._numbers) == self._at:
            self._act()
        self._sink.write_from(reader, offset, length)
