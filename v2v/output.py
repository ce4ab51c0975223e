"""The contract of outputs: where a VM is put.

One file in v2v/outputs is one mode; the class in it subclasses Output. tests/contract runs the
same suite against every output. v2v/outputs/null.py is the one to copy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from v2v.copy.sinks import Sink
from v2v.run import Run
from v2v.types import ConvertedGuest, GuestRef, Source, TargetDisk


class Output(ABC):
    mode: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    summary: ClassVar[str]  # one line for `v2v modes`
    Options: ClassVar[type]
    tools: ClassVar[tuple[str, ...]] = ()
    request_size: ClassVar[int | None] = None  # preferred bytes per write; None: engine's choice
    bootable: ClassVar[bool] = True  # its disks are local, so that --boot-check can boot them

    def __init__(self, options: Any) -> None:
        """`options` is an instance of Options."""
        self.options = options

    def check_source(self, source: Source, run: Run) -> None:  # noqa: B027
        """Refuse before anything expensive: unusable target, name taken, too many disks.

        Also called on resume; what this very job created before is not in its way.
        """

    def check_sizes(self, sizes: Sequence[int], used: Sequence[int], run: Run) -> None:  # noqa: B027
        """Refuse when the disks do not fit: virtual size and bytes to be stored, of each disk."""

    def check_guest(self, guest: ConvertedGuest, run: Run) -> None:  # noqa: B027
        """Refuse a guest that the target cannot run: architecture, firmware."""

    @abstractmethod
    def create_disks(
        self, source: Source, sizes: Sequence[int], run: Run
    ) -> tuple[TargetDisk, ...]:
        """Make room for the disks under working names. Durable; the caller journals the result.

        Names derive from the job id, so that calling it again after a crash makes no second set.
        """

    @abstractmethod
    def connect(
        self, disks: Sequence[TargetDisk], run: Run
    ) -> AbstractContextManager[Sequence[Sink]]:
        """Open the disks for writing: one sink per disk, in order."""

    @abstractmethod
    def finalize(
        self, source: Source, guest: ConvertedGuest, disks: Sequence[TargetDisk], run: Run
    ) -> GuestRef:
        """Give everything its final name and write the metadata. Safe to repeat after a crash."""

    @abstractmethod
    def discard(self, disks: Sequence[TargetDisk], run: Run) -> None:
        """Undo create_disks. Never touches what had its final name. Safe to repeat.

        `disks` is empty when the job died before it could journal them; the job id still tells
        what is its own.
        """


def is_copied(run: Run, index: int) -> bool:
    """Whether this job has disk `index` safe on the target; `connect` must keep what it holds."""
    return f"copied:{index}" in run.journal
