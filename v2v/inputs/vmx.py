"""-i vmx: a VM from its folder, of VMware ESXi, Workstation, Fusion or Player."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from v2v.endpoint import Endpoint
from v2v.errors import UsageError
from v2v.input import Input
from v2v.inputs import _options as common
from v2v.inputs._images import Access, serve_disks
from v2v.inputs._vmx.local import LocalFolder
from v2v.inputs._vmx.vm import read_folder
from v2v.options import option
from v2v.run import Run
from v2v.types import DiskFormat, Source

COPY_HINT = (
    "copy the VM's folder to this host, or mount the datastore that it is on, and give the .vmx "
    "file there"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VmxOptions:
    snapshot: str | None = option(
        "-io snapshot",
        "read the disks as they were when this snapshot was made, rather than as they are now",
        default=None,
        metavar="NAME",
    )
    allow_backing: tuple[Path, ...] = common.allow_backing("the VM and its disks")
    transport: str | None = option("-it", "none is supported yet", default=None)


class VmxInput(Input):
    mode = "vmx"
    summary = "a VM's folder of VMware ESXi, Workstation, Fusion or Player"
    Options = VmxOptions
    tools = ("nbdkit", "qemu-nbd")

    options: VmxOptions

    def read_source(self, run: Run) -> Source:
        return read_folder(LocalFolder(self._word(), self._access()), self.options.snapshot, run)

    def serve(self, source: Source, run: Run) -> AbstractContextManager[Sequence[Endpoint]]:
        return serve_disks(source.disks, self._access(), run)

    def _word(self) -> str:
        if self.options.transport is not None:
            raise UsageError(
                f"-i vmx cannot fetch a VM with -it {self.options.transport} yet",
                id="input-transport",
                hint=COPY_HINT,
            )
        word = self.only_guest()
        if "://" in word:
            raise UsageError(
                f"{word}: -i vmx reads files of this host only",
                id="input-transport",
                hint=COPY_HINT,
            )
        return word

    def _access(self) -> Access:
        allowed = tuple(path.resolve() for path in self.options.allow_backing)
        return Access(format=DiskFormat.VMDK, allowed=allowed)
