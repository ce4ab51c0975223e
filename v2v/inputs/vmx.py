"""-i vmx: a VM from its folder, of VMware ESXi, Workstation, Fusion or Player."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from v2v.endpoint import Endpoint
from v2v.errors import SourceError, UsageError
from v2v.image.names import named_file
from v2v.input import Input
from v2v.inputs import _options as common
from v2v.inputs._images import Access, read_disk, serve_disks
from v2v.inputs._vmx import read_vm
from v2v.inputs._vmx.drives import (
    Drive,
    boot_orders,
    read_disks,
    read_removables,
    tell_redo_logs,
)
from v2v.inputs._vmx.files import (
    disk_file,
    nvram_file,
    read_text,
    tell_if_repeated,
    tell_if_slow,
)
from v2v.inputs._vmx.snapshots import Snapshot, drives_then, find_snapshot, read_snapshots
from v2v.inputs._vmx.state import check_shut_down
from v2v.inputs._vmx.text import Vmx, parse_vmx
from v2v.options import option
from v2v.run import Run
from v2v.types import DiskFormat, Source, SourceDisk

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
        path = self._file()
        vmx = parse_vmx(read_text(path), str(path), run)
        check_shut_down(vmx, path, run, snapshot=self.options.snapshot is not None)
        snapshots = _snapshots(path, run, needed=self.options.snapshot is not None)
        drives = read_disks(vmx, run)
        if self.options.snapshot is not None:
            chosen = find_snapshot(snapshots, self.options.snapshot, str(path))
            drives = drives_then(chosen, drives, str(path), run)
        if not drives:
            raise SourceError(
                f"{path}: the VM has no disk",
                id="vmx-no-disks",
                hint="was it made without one, or is it another file that has them?",
            )
        tell_redo_logs(vmx, drives, run)
        vm = read_vm(vmx, path.stem, run)
        return replace(
            vm,
            disks=self._disks(vmx, path, drives, run),
            removables=read_removables(vmx),
            nvram=nvram_file(path, vmx.text("nvram")),
            snapshots=tuple(one.name for one in snapshots),
        )

    def serve(self, source: Source, run: Run) -> AbstractContextManager[Sequence[Endpoint]]:
        return serve_disks(source.disks, self._access(), run)

    def _file(self) -> Path:
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
        path = Path(word).expanduser().absolute()
        return _resolved(_only_vmx(path) if path.is_dir() else path)

    def _disks(
        self, vmx: Vmx, path: Path, drives: Sequence[Drive], run: Run
    ) -> tuple[SourceDisk, ...]:
        orders = boot_orders(vmx, drives)
        disks = tuple(
            replace(self._disk(path, drive, run), controller=drive.controller, boot_order=order)
            for drive, order in zip(drives, orders, strict=True)
        )
        tell_if_repeated(path, [drive.node for drive in drives], disks, run)
        return disks

    def _disk(self, path: Path, drive: Drive, run: Run) -> SourceDisk:
        file = disk_file(path, drive.file, self._access().allowed, run)
        try:
            disk = read_disk(str(file), self._access(), run)
        except SourceError as exc:
            if exc.id != "image-format-wrong":
                raise
            raise SourceError(
                exc.message,
                id=exc.id,
                hint="a VM's file names the small .vmdk of a disk, which names the data: is it it?",
            ) from exc
        tell_if_slow(disk, run)
        return disk

    def _access(self) -> Access:
        allowed = tuple(path.resolve() for path in self.options.allow_backing)
        return Access(format=DiskFormat.VMDK, allowed=allowed)


def _only_vmx(folder: Path) -> Path:
    """The VM of a folder that holds one."""
    found = sorted(path.name for path in folder.iterdir() if path.suffix.lower() == ".vmx")
    if len(found) == 1:
        return folder / found[0]
    told = f"several .vmx files: {', '.join(found[:10])}" if found else "no .vmx file"
    raise SourceError(
        f"{folder} holds {told}", id="vmx-folder", hint="give the .vmx file of the VM itself"
    )


def _resolved(path: Path) -> Path:
    """The file itself, where it is a link: the disks are beside that."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path  # reading it tells what is wrong


def _snapshots(path: Path, run: Run, *, needed: bool) -> tuple[Snapshot, ...]:
    """Those of the .vmsd beside it. Where none is asked for, a damaged file is only told."""
    found = path.with_suffix(".vmsd")
    others = sorted(path.parent.glob("*.vmsd"))[:2]
    if not found.exists() and len(others) == 1 and len(list(path.parent.glob("*.vmx"))) == 1:
        found = others[0]
    if not found.exists():
        return ()
    try:
        text = read_text(named_file(path, found.name, ()))  # not what a link leads to elsewhere
        return read_snapshots(parse_vmx(text, str(found), run))
    except SourceError as exc:
        if needed:
            raise
        run.warn(exc.message, id=exc.id, hint="the names of snapshots are not known")
        return ()
