"""Sources and targets of the copy benchmarks: scratch files and the NBD servers in front of them.

The servers are started before the clock runs, and are the same programs for both sides.
"""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.bench.ballast import Ballast
from v2v.types import KiB, MiB

BLOCK = 64 * MiB  # random bytes made at once
START_SECONDS = 10.0
_numbers = itertools.count()


class ImpossibleError(Exception):
    """This machine cannot do it."""


def scratch(folder: Path, name: str) -> Path:
    """A name that nothing has."""
    return folder / f"{name}-{os.getpid()}-{next(_numbers)}"


@contextmanager
def nbdkit(folder: Path, *argv: str | Path) -> Iterator[Path]:
    """nbdkit with these arguments; gives its socket."""
    socket = scratch(folder, "sock")
    with listening(["nbdkit", "--foreground", "--unix", str(socket), *map(str, argv)], socket):
        yield socket


@contextmanager
def qemu_nbd(folder: Path, image: Path) -> Iterator[Path]:
    """A writable qcow2 image."""
    socket = scratch(folder, "sock")
    argv = ["qemu-nbd", "--persistent", "--format=qcow2", "--cache=writeback", "--shared=8"]
    with listening([*argv, f"--socket={socket}", str(image)], socket):
        yield socket


@contextmanager
def listening(argv: Sequence[str], socket: Path) -> Iterator[None]:
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not socket.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{' '.join(argv)}: does not listen")
            time.sleep(0.01)
        yield
    finally:
        process.terminate()
        process.wait()
        socket.unlink(missing_ok=True)


@contextmanager
def file(path: Path) -> Iterator[Path]:
    """A file that is gone at the end of the block."""
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def kept(path: Path, ballast: Ballast) -> Iterator[Path]:
    """A file whose memory is kept at the end of the block."""
    try:
        yield path
    finally:
        if path.exists():
            ballast.keep(path)


@contextmanager
def image(folder: Path, size: int, *, ballast: Ballast, kind: str = "dense") -> Iterator[Path]:
    """A raw disk of random data.

    `half`: every second 64 MiB is a hole. `checkerboard`: every second 64 KiB is one.
    """
    step = {"dense": size, "half": 64 * MiB, "checkerboard": 64 * KiB}[kind]
    data = random.Random(size).randbytes(min(BLOCK, size))
    ballast.release(size if kind == "dense" else size // 2)
    with kept(scratch(folder, kind), ballast) as path:
        with path.open("wb", buffering=0) as out:
            out.truncate(size)
            for offset, length in _filled(size, step):
                start = offset % len(data)
                # every block begins with its number, so that misplaced ones would be seen
                os.pwrite(out.fileno(), memoryview(data)[start : start + length], offset)
                os.pwrite(out.fileno(), offset.to_bytes(8, "little"), offset)
            os.fsync(out.fileno())
        yield path


def _filled(size: int, step: int) -> Iterator[tuple[int, int]]:
    every = step if step == size else 2 * step
    for start in range(0, size, every):
        end = min(start + step, size)
        for offset in range(start, end, BLOCK):
            yield offset, min(BLOCK, end - offset)


@contextmanager
def reflinking(folder: Path, size: int) -> Iterator[Path]:
    """A new XFS in a file. Raises ImpossibleError: it needs root."""
    with file(scratch(folder, "xfs")) as disk:
        mount = scratch(folder, "mount")
        mount.mkdir()
        try:
            with disk.open("wb") as out:
                out.truncate(size)
            _quiet("mkfs.xfs", "-q", "-m", "reflink=1", disk)
            _quiet("mount", "-o", "loop", disk, mount)
            try:
                yield mount
            finally:
                _quiet("umount", mount)
        finally:
            mount.rmdir()


def _quiet(*argv: str | Path) -> None:
    try:
        subprocess.run(argv, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as exc:
        raise ImpossibleError(f"{argv[0]} does not work here: {exc}") from None
