"""Leaving a copy to the kernel, where source and target are files that it can copy between.

On filesystems that can share blocks (XFS, btrfs) nothing is moved at all; elsewhere the data does
not pass through v2v. What the kernel cannot do is left for those who read and write.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from v2v.cancel import Cancel, raise_cause
from v2v.copy.bandwidth import Bandwidth
from v2v.copy.progress import Meter
from v2v.copy.target import Target
from v2v.extents import Extent, Ranges, split
from v2v.types import MiB

STEP = 16 * MiB  # bytes of one call, which cannot be cancelled
THREADS = 2  # one does not fill the bandwidth of memory


def clone(
    file: Path,
    extents: Iterable[Extent],
    target: Target,
    *,
    bandwidth: Bandwidth,
    meter: Meter,
    stop: Cancel,
) -> Ranges:
    """Copy the data among `extents` from a raw file; gives what is done, maybe nothing."""
    done = Ranges()
    lock = threading.Lock()
    todo = (part for extent in extents if not extent.zero for part in split(extent, STEP))

    def work(fd: int) -> None:
        while True:
            stop.check()
            with lock:
                part = next(todo, None)
            if part is None or not target.clone(fd, part):
                return
            with lock:
                done.add(part.offset, part.length)
            meter.add(part.length)
            bandwidth.pause(part.length, stop.wait)

    def guarded(fd: int) -> None:
        try:
            work(fd)
        except BaseException:
            stop.cancel()
            raise

    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with ThreadPoolExecutor(THREADS, thread_name_prefix="clone") as pool:
            tasks = [pool.submit(guarded, fd) for _ in range(THREADS)]
    finally:
        os.close(fd)
    raise_cause(error for task in tasks if (error := task.exception()))
    return done
