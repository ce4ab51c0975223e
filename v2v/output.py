"""The contract of outputs: where a VM is put.

One file in v2v/outputs is one mode; the class in it subclasses Output. tests/contract runs the
same suite against every output. v2v/outputs/null.py is the one to copy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

from v2v.copy.sinks import Sink
from v2v.job import CopyOptions, Job
from v2v.journal import sync_folder
from v2v.run import Run
from v2v.types import ConvertedGuest, GuestRef, Source, TargetDisk

DATA = "data"  # journal: bytes of data per disk
FORGOTTEN = "forgotten"  # journal: the target may hold what no ledger tells of any longer


class Output(ABC):
    mode: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    summary: ClassVar[str]  # one line for `v2v modes`
    Options: ClassVar[type]
    tools: ClassVar[tuple[str, ...]] = ()
    request_size: ClassVar[int | None] = None  # preferred bytes per write; None: engine's choice
    bootable: ClassVar[bool] = True  # its disks are local, so that --boot-check can boot them
    can_verify: ClassVar[bool] = True  # what was written can be read back
    per_disk_storage: ClassVar[bool] = False  # takes --storage: SourceDisk.target_storage
    nic_maps: ClassVar[tuple[str, ...]] = ("network", "bridge", "mac")  # which of these it takes
    # Its disks are there before and after. What is begun is compared, for another disk may be there
    # one day; what a cancelled job has copied stays, for nothing can be taken back.
    existing: ClassVar[bool] = False
    overwrites: bool = False  # --force: they may have held anything
    data_grain: ClassVar[int] = 1  # bytes that take space together: data is counted in whole ones
    can_rewrite: bool = True  # what was written may be written over: needed to copy ahead

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
        """Open the disks for writing: one sink per disk, in order.

        What is_copied and is_begun tell of is kept; other disks are blank.
        """

    @abstractmethod
    def finalize(
        self, source: Source, guest: ConvertedGuest, disks: Sequence[TargetDisk], run: Run
    ) -> GuestRef:
        """Give everything its final name and write the metadata. Safe to repeat after a crash."""

    @abstractmethod
    def discard(self, disks: Sequence[TargetDisk], run: Run) -> None:
        """Undo create_disks. Never touches what had its final name. Safe to repeat.

        `disks` is empty when the job died before it could journal them; the job id, and what the
        output has journaled itself, still tell what is its own. `run.cancel` is not set, even if
        that of the job is.
        """


def is_copied(run: Run, index: int) -> bool:
    """Whether this job has disk `index` safe on the target; `connect` must keep what it holds."""
    return f"copied:{index}" in run.journal


def is_begun(run: Run, index: int) -> bool:
    """Whether parts of disk `index` are safe on the target; `connect` must keep what it holds."""
    from v2v.copy.ledger import Ledger

    path = ledger_path(run, index)
    return path.exists() and bool(Ledger(path))


def is_comparable(run: Run, index: int) -> bool:
    """Whether a blank target of disk `index` holds nothing by now but what this job wrote there.

    Nothing of it may be recorded yet. It is zeroes, the source's, or the converted guest's.
    """
    return ledger_path(run, index).exists() and FORGOTTEN not in run.journal


def ledger_path(run: Run, index: int) -> Path:
    """Where it is written down which parts of disk `index` are safe on the target."""
    return run.folder / f"copied-{index}"


def digests_path(run: Run, index: int) -> Path:
    """Where the digests of disk `index` are, for --verify."""
    return run.folder / f"digests-{index}"


def forget_progress(run: Run, indexes: Iterable[int] | None = None) -> None:
    """Nothing of these disks, or of any, counts as copied any longer. Durable when it returns.

    To be called before what was copied is removed, or made anew.
    """
    if FORGOTTEN not in run.journal and "finalize" not in run.journal and _begun(run):
        run.journal.put(FORGOTTEN, True)
    for index in indexes if indexes is not None else _begun(run):
        ledger_path(run, index).unlink(missing_ok=True)
        digests_path(run, index).unlink(missing_ok=True)
    sync_folder(run.folder)


def _begun(run: Run) -> list[int]:
    found = [path for kind in ("copied", "digests") for path in run.folder.glob(f"{kind}-*")]
    numbers = {path.name.partition("-")[2] for path in found}
    return sorted(int(number) for number in numbers if number.isdecimal())


def copy_options(run: Run) -> CopyOptions:
    """What the user asked of this job's copy."""
    return run.journal.get("job", Job).copy if "job" in run.journal else CopyOptions()


def record_data(sizes: Sequence[int], run: Run) -> None:
    """Write down how many bytes of data each disk has."""
    run.journal.put(DATA, tuple(sizes))


def data_size(disk: TargetDisk, index: int, run: Run) -> int:
    """How many bytes of data disk `index` has, about; its virtual size when that is not known."""
    return run.journal.get(DATA, tuple[int, ...])[index] if DATA in run.journal else disk.size
