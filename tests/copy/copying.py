"""Copying as tests do it: from any endpoint into memory or to any sink."""

from __future__ import annotations

import gc
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from v2v.cancel import Cancel
from v2v.copy import engine, fetch
from v2v.copy import target as target_module
from v2v.copy.digests import Digests
from v2v.copy.engine import Shared, copy_disk
from v2v.copy.ledger import Ledger
from v2v.copy.progress import Progress
from v2v.copy.sinks import FileSink, Sink
from v2v.endpoint import Endpoint
from v2v.job import CopyOptions
from v2v.types import CopyResult, KiB, MiB


def noise(size: int, *, seed: int = 1) -> bytearray:
    return bytearray(random.Random(seed).randbytes(size))


def patchy(size: int, *, seed: int = 1) -> bytearray:
    """Data with holes of 64 KiB and more, and zeroes inside the data."""
    content = noise(size, seed=seed)
    for start in range(100 * KiB, size, 300 * KiB):
        end = min(start + 128 * KiB, size)
        content[start:end] = bytes(end - start)
    for start in range(20 * KiB, size, 90 * KiB):
        end = min(start + 8 * KiB, size)
        content[start:end] = bytes(end - start)
    return content


class Target:
    """A raw disk in memory."""

    def __init__(self, size: int, *, fill: bytes = b"\0") -> None:
        self.size = size
        self.fd = os.memfd_create("v2v-test")
        os.truncate(self.fd, size)
        if fill != b"\0":
            os.pwrite(self.fd, (fill * (size // len(fill) + 1))[:size], 0)

    @property
    def content(self) -> bytes:
        return os.pread(self.fd, self.size + 1, 0)


@contextmanager
def memory(size: int, *, fill: bytes = b"\0") -> Iterator[Target]:
    target = Target(size, fill=fill)
    try:
        yield target
    finally:
        os.close(target.fd)


def pause(patch: pytest.MonkeyPatch, *seconds: float) -> None:
    """Pauses before a retry."""
    for module in (engine, fetch, target_module):
        patch.setattr(module, "RETRY_SECONDS", seconds)


def file_sink(target: Target, *, request_size: int | None = 256 * KiB, is_zero: bool = True):
    return FileSink(target.fd, request_size=request_size, is_zero=is_zero, size=target.size)


def shared(cancel: Cancel | None = None, **options) -> Shared:
    """Two connections unless told, and no server is given up because the machine is busy."""
    chosen = CopyOptions(**{"connections": 2, "stall_timeout": 30.0, **options})
    return Shared(chosen, cancel=cancel or Cancel(), progress=Progress(lambda standing: None))


def copied(
    endpoint: Endpoint,
    sink: Sink | None = None,
    *,
    cancel: Cancel | None = None,
    ledger: Ledger | None = None,
    digests: Digests | None = None,
    disk: int = 0,
    **options,
) -> tuple[CopyResult, bytes]:
    """Copy a whole disk; what it took, and the target's content when no sink is given."""
    with ExitStack() as stack:
        target = stack.enter_context(memory(endpoint.size))
        if digests is None and options.get("verify"):
            digests = stack.enter_context(closing(Digests(None, endpoint.size)))
        sink = sink or file_sink(target)
        result = copy_disk(
            disk, endpoint, sink, shared(cancel, **options), ledger=ledger, digests=digests
        )
        return result, target.content


class Wrapped:
    """A sink that calls `before(call, number)` before each write, zero or flush; from 0."""

    def __init__(self, sink: Sink, before: Callable[[str, int], None]) -> None:
        self._sink = sink
        self._before = before
        self._lock = threading.Lock()
        self._count = {"write": 0, "zero": 0, "flush": 0}

    def __getattr__(self, name: str):
        found = getattr(self._sink, name)
        if name not in self._count:
            return found

        def call(*arguments):
            with self._lock:
                number = self._count[name]
                self._count[name] += 1
                self._before(name, number)
            return found(*arguments)

        return call


@contextmanager
def nothing_left_over() -> Iterator[None]:
    """Threads and file descriptors are as they were; a thread may be at its end."""
    threads, descriptors = set(threading.enumerate()), open_files()
    yield
    deadline = time.monotonic() + 30
    while set(threading.enumerate()) - threads and time.monotonic() < deadline:
        for thread in set(threading.enumerate()) - threads:
            thread.join(0.1)
    assert set(threading.enumerate()) <= threads
    gc.collect()  # a traceback keeps the handles of an engine that failed
    while not open_files() <= descriptors and time.monotonic() < deadline:
        time.sleep(0.01)  # a fake server hangs up in a thread of its own
    assert open_files() <= descriptors


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


SIZE = 4 * MiB
