"""What block devices and NBD exports have in common as targets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice

from v2v.copy.sinks import Sink
from v2v.errors import TargetError
from v2v.extents import Extent
from v2v.job import CopyOptions
from v2v.run import Run
from v2v.texts import size_text
from v2v.types import KiB, MiB, Source

PROBE = 64 * KiB  # bytes looked at in one place
PROBES = 64  # places looked at, besides both ends
ENOUGH = 10_000  # pieces of data; a target with more of them is not blank anyway
ENDS = 1 * MiB  # partition tables and superblocks are here


@dataclass(frozen=True, slots=True)
class Opened:
    """What a target needs to know of the disk that is to be written."""

    size: int  # of the disk, bytes
    used: int  # bytes that hold data
    resumed: bool  # the target holds a part of it already
    force: bool
    options: CopyOptions


class Place(ABC):
    """`check` and `look` before anything is read, then `open`."""

    def __init__(self, shown: str) -> None:
        self.shown = shown

    @abstractmethod
    def check(self, source: Source) -> None:
        """Refuse what is known before the place is opened: it is the source, or in use."""

    @abstractmethod
    def look(self, options: CopyOptions, run: Run, *, blank: bool) -> int:
        """Its size in bytes. Refuses what cannot be written; with `blank` what holds something."""

    @abstractmethod
    def open(self, disk: Opened, run: Run, *, sparse: bool) -> AbstractContextManager[Sink]:
        """The same, and open it for writing. With `sparse` zeroes may give their space back."""

    @abstractmethod
    def is_same(self, other: Place) -> bool:
        """Whether the other one shares bytes with this."""

    def identity(self) -> str:
        """What tells it from another one that gets its name one day; empty: nothing does."""
        return ""

    def check_size(self, needed: int, there: int) -> None:
        if there < needed:
            raise TargetError(
                f"{self.shown} has {there} bytes ({size_text(there)}), "
                f"the disk needs {needed} ({size_text(needed)})",
                id="target-too-small",
                hint="nothing was written; give a larger target",
            )

    def note_size(self, needed: int, there: int, run: Run) -> None:
        """Refuse a target that is too small; tell of one that is larger."""
        self.check_size(needed, there)
        if there > needed:
            run.warn(
                f"{self.shown} is {size_text(there - needed)} larger than the disk; "
                "what lies behind the disk's end stays as it is",
                id="target-larger",
            )

    def check_blank(
        self, read: Callable[[int, int], bytes], size: int, extents: Iterable[Extent]
    ) -> None:
        """Refuse a target that seems to hold something, unless --force said so."""
        for offset, length in probes(size, extents):
            data = read(offset, length)
            if data.count(0) != len(data):
                raise TargetError(
                    f"{self.shown} is not empty: there is data near byte {offset}",
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
