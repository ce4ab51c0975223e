"""What every kind of target does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

from v2v.copy.sinks import Sink
from v2v.errors import TargetError, UsageError
from v2v.extents import Extent
from v2v.job import CopyOptions
from v2v.run import Run
from v2v.texts import size_text
from v2v.types import Allocation, DiskFormat, KiB, MiB, Source

PROBE = 64 * KiB  # bytes looked at in one place
PROBES = 64  # places looked at, besides both ends
ENOUGH = 10_000  # pieces of data; a target with more of them is not blank anyway
ENDS = 1 * MiB  # partition tables and superblocks are here


@dataclass(frozen=True, slots=True)
class Shape:
    """What the target is to look like."""

    format: DiskFormat = DiskFormat.RAW
    compressed: bool = False
    allocation: Allocation = Allocation.SPARSE


@dataclass(frozen=True, slots=True)
class Opened:
    """What a target needs to know of the disk that is to be written."""

    size: int  # of the disk, bytes
    used: int  # bytes that hold data
    resumed: bool  # the target holds a part of it already
    force: bool
    options: CopyOptions


class Target(ABC):
    """`check`, then `open`, then `finish`; `discard` undoes an `open` that came to nothing."""

    marked: ClassVar[bool] = True  # what was begun shows at the target, and cannot be undone
    kept: ClassVar[bool] = True  # it holds what was written

    def __init__(self, shown: str, shape: Shape) -> None:
        self.shown = shown
        self.shape = shape

    @abstractmethod
    def check(self, source: Source, *, force: bool, run: Run) -> None:
        """Refuse what is known before the source is opened."""

    @abstractmethod
    def open(self, disk: Opened, run: Run) -> AbstractContextManager[Sink]:
        """Refuse what the target itself tells, make it, and open it for writing."""

    def finish(self, run: Run, size: int, *, force: bool) -> None:  # noqa: B027
        """All is written: give it its name. Safe to repeat after a crash."""

    def discard(self) -> None:  # noqa: B027
        """Remove what `open` made, where that is possible."""

    def is_there(self, size: int) -> bool:
        """Whether what an earlier run wrote is still there, for a disk of `size` bytes."""
        return True

    def _only_raw(self) -> None:
        if self.shape.format is not DiskFormat.RAW:
            raise UsageError(
                f"{self.shown}: only files can be {self.shape.format}; this is written raw",
                id="option-conflict",
                hint="leave out -of, or name a file as the target",
            )
        if self.shape.compressed:
            raise UsageError(
                f"{self.shown}: only qcow2 files can be compressed",
                id="option-conflict",
                hint="leave out --compressed, or name a file as the target",
            )


def note_size(shown: str, needed: int, there: int, run: Run) -> None:
    """Refuse a target that is too small; tell of one that is larger."""
    if there < needed:
        raise TargetError(
            f"{shown} has {there} bytes ({size_text(there)}), "
            f"the disk needs {needed} ({size_text(needed)})",
            id="target-too-small",
            hint="nothing was written; give a larger target",
        )
    if there > needed:
        run.warn(
            f"{shown} is {size_text(there - needed)} larger than the disk; "
            "what lies behind the disk's end stays as it is",
            id="target-larger",
        )


def check_blank(
    shown: str, read: Callable[[int, int], bytes], size: int, extents: Iterable[Extent]
) -> None:
    """Refuse a target that seems to hold something, unless --force said so."""
    for offset, length in probes(size, extents):
        data = read(offset, length)
        if data.count(0) != len(data):
            raise TargetError(
                f"{shown} is not empty: there is data near byte {offset}",
                id="target-not-empty",
                hint="is it the right one? --force overwrites it",
            )


def probes(size: int, extents: Iterable[Extent]) -> list[tuple[int, int]]:
    """Where to look: both ends, where data begins, and places in between."""
    found = (extent for extent in extents if not extent.zero and extent.offset < size)
    data = list(islice(found, ENOUGH))
    if not data:
        return []
    spots = [(0, ENDS), (max(size - ENDS, 0), ENDS)]
    spots += [(extent.offset, min(PROBE, extent.length)) for extent in data[:: _step(len(data))]]
    total = sum(extent.length for extent in data)
    spots += [(_nth_byte(data, total * n // PROBES), PROBE) for n in range(PROBES)]
    return sorted({(offset, min(length, size - offset)) for offset, length in spots})


def _step(count: int) -> int:
    return -(-count // PROBES)


def _nth_byte(data: list[Extent], number: int) -> int:
    """Where the data's byte `number` lies, down to a whole sector."""
    for extent in data:
        if number < extent.length:
            return (extent.offset + number) // 512 * 512
        number -= extent.length
    return data[-1].offset
