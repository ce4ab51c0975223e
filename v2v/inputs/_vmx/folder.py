"""What reading a VM of VMware asks of the folder that its .vmx file lies in, wherever that is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from v2v.errors import SourceError
from v2v.inputs._vmx.drives import Drive
from v2v.run import Run
from v2v.texts import clean
from v2v.types import SourceDisk
from v2v.vmdk.store import Kind

ENDINGS = (".vmx", ".vmtx")  # VMs; templates, which are VMs that nobody starts


class VmFolder(Protocol):
    """Of a VM. Names are those of files in the folder, unless they say otherwise."""

    vmx: str  # the .vmx file, as messages call it: a path, an address
    stem: str  # its name without its ending
    remote: bool  # it is where the VM runs; a folder of this host may be a copy

    def read_vmx(self) -> bytes:
        """Of a file that is too large, as much as is too much; SourceError if it is none."""
        ...

    def read(self, name: str) -> bytes:
        """Another text; SourceError, also for a link that leads out of the folder."""
        ...

    def entries(self, folder: str = "") -> Mapping[str, Kind]:
        """What there is, by name; or what is in a folder in it. SourceError."""
        ...

    def shown(self, name: str) -> str:
        """How messages call a file."""
        ...

    def disk(self, drive: Drive, run: Run) -> SourceDisk:
        """The disk whose file a drive names; without what only the .vmx knows of it."""
        ...

    def nvram(self, name: str) -> str | None:
        """Where the file with the firmware's variables is, if it is there."""
        ...


def only_vmx(folder: str, names: Iterable[str]) -> str:
    """Of a folder that holds one VM, the name of its .vmx file. `folder` is for messages."""
    found = sorted(name for name in names if name.lower().endswith(ENDINGS[0]))
    if len(found) == 1:
        return found[0]
    told = f"several .vmx files: {clean(', '.join(found[:10]))}" if found else "no .vmx file"
    raise SourceError(
        f"{folder} holds {told}", id="vmx-folder", hint="give the .vmx file of the VM itself"
    )
