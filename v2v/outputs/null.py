"""-o null: takes everything, keeps nothing. For measuring, for testing, and to copy from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from v2v.copy.sinks import NullSink, Sink
from v2v.options import NoOptions
from v2v.output import Output
from v2v.run import Run
from v2v.types import ConvertedGuest, DiskFormat, GuestRef, Source, TargetDisk


class NullOutput(Output):
    mode = "null"
    summary = "throw the disks away: a rehearsal that reads and converts everything"
    Options = NoOptions
    request_size = None  # 0.38 s for 1 GiB with 256 KiB as with 1 MiB: no preference
    bootable = False
    can_verify = False
    per_disk_storage = True  # the options of the migration that it rehearses

    def create_disks(
        self, source: Source, sizes: Sequence[int], run: Run
    ) -> tuple[TargetDisk, ...]:
        return tuple(TargetDisk("null:", "null:", DiskFormat.RAW, size) for size in sizes)

    @contextmanager
    def connect(self, disks: Sequence[TargetDisk], run: Run) -> Iterator[Sequence[Sink]]:
        yield [NullSink(request_size=self.request_size, size=disk.size) for disk in disks]

    def finalize(
        self, source: Source, guest: ConvertedGuest, disks: Sequence[TargetDisk], run: Run
    ) -> GuestRef:
        return GuestRef(name=source.name, disks=tuple(disks))

    def discard(self, disks: Sequence[TargetDisk], run: Run) -> None:
        """There is nothing to undo."""
