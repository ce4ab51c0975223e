"""What every kind of target does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar

from v2v.copy.sinks import Sink
from v2v.errors import UsageError
from v2v.run import Run
from v2v.targets import Opened
from v2v.types import Allocation, DiskFormat, Source


@dataclass(frozen=True, slots=True)
class Shape:
    """What the target is to look like."""

    format: DiskFormat = DiskFormat.RAW
    compressed: bool = False
    allocation: Allocation = Allocation.SPARSE

    @property
    def sparse(self) -> bool:
        return self.allocation is Allocation.SPARSE


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
