"""The contract of inputs: where a VM is read from.

One file in v2v/inputs is one mode; the class in it subclasses Input. tests/contract runs the same
suite against every input.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

from v2v.endpoint import Endpoint
from v2v.errors import UsageError
from v2v.run import Run
from v2v.types import GuestSummary, Source, SourceChange, SourceDisk

MODIFIED = "modified"  # in SourceDisk.details: by what it is seen that the disk changed


class Input(ABC):
    mode: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    summary: ClassVar[str]  # one line for `v2v modes`
    Options: ClassVar[type]
    tools: ClassVar[tuple[str, ...]] = ()  # programs it needs, for `v2v doctor`
    guests_are_files: ClassVar[bool] = True  # guests without :// are paths, rather than names

    def __init__(self, options: Any, guests: Sequence[str]) -> None:
        """`options` is an instance of Options; `guests` are the positional words."""
        self.options = options
        self.guests = tuple(guests)

    def only_guest(self) -> str:
        """The one guest, for modes whose guest is not a disk: they read one VM at a time."""
        if len(self.guests) != 1:
            raise UsageError(
                f"-i {self.mode} reads one VM at a time, and {len(self.guests)} guests are named",
                id="guests-too-many",
                hint="run v2v once for each; a VM's disks are found by themselves",
            )
        return self.guests[0]

    def list_guests(self, run: Run) -> Sequence[GuestSummary]:
        """The VMs that there are to read, by name. Reads metadata only, and changes nothing."""
        raise UsageError(
            f"-i {self.mode} cannot list VMs",
            id="list-impossible",
            hint="`v2v list -ic URI` asks a vCenter, an ESXi host or a libvirt",
        )

    @property
    def changes_source(self) -> bool:
        """Whether the options ask for a change at the source; if not, `prepare` is not called."""
        return False

    def prepare(self, run: Run) -> None:
        """Make the changes at the source that the options ask for, each through
        v2v.source_changes, which journals it first. Does again what is not there any more."""
        return

    def preview_source(self, run: Run) -> Source:
        """What read_source will tell, before `prepare`: of a VM that may still run. What can be
        refused is refused by this, before anything is changed."""
        return self.read_source(run)

    def undo(self, change: SourceChange, run: Run) -> None:
        """Take back one change of `prepare`. What is not there any more is no error, nor what was
        never made: the journal may only tell that it was planned."""
        raise NotImplementedError(f"{self.mode} changes nothing at the source")

    @abstractmethod
    def read_source(self, run: Run) -> Source:
        """Describe the VM. Durable and cheap: starts no server, reads metadata and headers only."""

    @abstractmethod
    def serve(self, source: Source, run: Run) -> AbstractContextManager[Sequence[Endpoint]]:
        """Serve the disks read-only over NBD: one endpoint per disk, in their order."""


def tells_changes(disk: SourceDisk) -> bool:
    """Whether it is seen, when a job is resumed, that somebody wrote to the disk meanwhile.

    Servers of NBD, SSH, iSCSI and Ceph tell no time, nor do some web servers; nor does a block
    device, under whatever image it lies.
    """
    return bool(disk.details.get(MODIFIED)) and not any(
        Path(file).is_block_device() for file in disk.files
    )
