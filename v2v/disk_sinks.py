"""The sinks of disks in files: raw, or qcow2 through qemu-nbd."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from v2v import nbd_client, qemu_nbd
from v2v.copy.sinks import FileSink, NbdSink, SinkLost
from v2v.job import PageCache
from v2v.run import Run
from v2v.types import DiskFormat, GiB, KiB, MiB

CLUSTER = 64 * KiB  # of the qcow2 files that qemu-img makes

# Bytes per write, measured with 1 GiB of data into tmpfs, read from nbdkit's file plugin, seconds:
#            256 KiB   1 MiB   2 MiB   4 MiB   8 MiB
# raw           0.78    0.82    1.03    0.93    0.92
# qcow2         1.92    1.84    1.55    1.53    1.71
# The same for 256 MiB that compress to half, compressed qcow2 on ext4 (clusters in parallel):
#               4.49    5.38    3.89    3.09    4.64
RAW_REQUEST = 1 * MiB
QCOW2_REQUEST = 2 * MiB
COMPRESSED_REQUEST = 4 * MiB

# What the host has cached is worth more to its running guests than an image that may be started
# tomorrow. A small image may stay: it is likely to be booted or looked at soon, and it pushes out
# little. Small is what takes neither a quarter of the memory that is free for such use, nor this:
CACHED_IMAGE = 4 * GiB


@contextmanager
def raw_sink(
    path: Path, size: int, *, blank: bool, sparse: bool, drop_cache: bool
) -> Iterator[FileSink]:
    """`blank`: the file is known to read as zeroes. `size`: the disk's, bytes."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        yield FileSink(
            fd,
            request_size=RAW_REQUEST,
            is_zero=blank,
            sparse=sparse,
            drop_cache=drop_cache,
            size=size,
        )
    finally:
        os.close(fd)


@contextmanager
def qcow2_sink(
    path: Path, run: Run, *, name: str, blank: bool, sparse: bool, compressed: bool, stall: float
) -> Iterator[NbdSink]:
    """`blank`: the image is known to read as zeroes. `name`: of the server and its log."""
    image = qemu_nbd.image_options(path, DiskFormat.QCOW2)
    if compressed:
        image = {"driver": "compress", **{f"file.{k}": v for k, v in image.items()}}
    with qemu_nbd.serve(image, run=run, name=name, read_only=False, discard=sparse) as socket:
        kind = CompressedSink if compressed else NbdSink
        sink = kind(
            nbd_client.describe(socket, read_only=False),
            request_size=COMPRESSED_REQUEST if compressed else QCOW2_REQUEST,
            is_zero=blank,
            alignment=CLUSTER if compressed else None,  # a cluster is compressed once, whole
            sparse=sparse,
            stall=stall,
            cancel=run.cancel,
        )
        try:
            yield sink
        finally:
            sink.hang_up()  # what counts was flushed


class CompressedSink(NbdSink):
    """A qcow2 image whose clusters QEMU compresses.

    QEMU refuses to compress a cluster that holds something already; once it is zeroed it does. In
    an image that an earlier run began that is done first: a refusal comes when a part of the
    request is written, and to free clusters that the same server has just compressed is what
    QEMU 7.2 does not always get right.
    """

    def write(self, offset: int, buffer: memoryview) -> None:
        if not self.is_zero:
            self.zero(offset, len(buffer))
        try:
            super().write(offset, buffer)
        except SinkLost:
            raise
        except OSError as exc:
            if exc.errno != errno.EIO:
                raise
            self.zero(offset, len(buffer))
            super().write(offset, buffer)


def drops_cache(choice: PageCache, data: int) -> bool:
    """Whether `data` bytes that are written should not stay in the page cache."""
    if choice is not PageCache.AUTO:
        return choice is PageCache.DROP
    return data > min(_available_memory() // 4, CACHED_IMAGE)


def _available_memory() -> int:
    """Bytes that could be used without swapping, as Linux estimates them."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    (kilobytes,) = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(kilobytes) * KiB
