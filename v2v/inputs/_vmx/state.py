"""Whether a VM of VMware is shut down, as far as the files in its folder tell."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from v2v.errors import SourceError
from v2v.inputs._vmx.drives import Drive
from v2v.inputs._vmx.folder import ENDINGS, VmFolder
from v2v.inputs._vmx.snapshots import Listed
from v2v.inputs._vmx.text import Vmx
from v2v.run import Run
from v2v.texts import clean
from v2v.vmdk.store import Kind

_OF_SNAPSHOT = re.compile(r"-Snapshot\d+\.vmem$", re.IGNORECASE)


def check_shut_down(
    vmx: Vmx,
    folder: VmFolder,
    listed: Listed,
    run: Run,
    *,
    frozen: bool,
    written: Sequence[Drive],
    read: Sequence[Drive],
) -> None:
    """Refuse a VM that runs, or is suspended, unless what is read does not change.

    `frozen`: a snapshot is read; then `read` are its drives, and `written` those that the VM has.
    """
    if (state := vmx.text("checkpoint.vmState")) and not frozen:
        raise SourceError(
            f"{folder.vmx}: the VM is suspended ({clean(state[:80])})",
            id="source-suspended",
            hint="resume it in VMware and shut it down; what is in its memory is not on the disks",
        )
    left = sign_of_running(folder, folder.entries())
    if left and not frozen:
        raise _running(folder, left)
    if left:
        _check_frozen(folder, listed, left, written, read)
    if listed.consolidating and not frozen:
        run.warn(
            f"{folder.vmx}: files of deleted snapshots wait to be merged into the VM's disks",
            id="vmx-consolidation",
            hint="they are read as they are; should VMware merge them now, the copy is torn",
        )
    if vmx.flag("cleanShutdown") is False and not frozen:
        run.warn(
            f"{folder.vmx}: the VM was not shut down cleanly, or ran when its folder was copied",
            id="vmx-not-shut-down",
            hint="if it ran, its disks are torn: shut it down, and copy the folder again",
        )


def _running(folder: VmFolder, left: str) -> SourceError:
    if folder.remote:
        return SourceError(
            f"{folder.vmx}: the VM is running: {clean(left)} is there",
            id="source-running",
            hint="shut it down; or make a snapshot of it, and read that while it runs: "
            f"-io snapshot=NAME. If it is off, delete what is left over: {clean(left)}",
        )
    shown = folder.shown(left)
    return SourceError(
        f"{folder.vmx}: the VM may be running, or was when its folder was copied: {shown} is there",
        id="source-running",
        hint=f"shut it down, and copy the folder again if it is a copy; if it is off, delete "
        f"what is left over: {shown}",
    )


def _check_frozen(
    folder: VmFolder, listed: Listed, left: str, written: Sequence[Drive], read: Sequence[Drive]
) -> None:
    """A VM that runs writes to the topmost file of each disk, and none of those is read.

    While snapshots are consolidated, the host writes to those below, too.
    """
    if listed.consolidating:
        raise SourceError(
            f"{folder.vmx}: the VM runs, and its snapshots are being consolidated, or need to be",
            id="source-consolidating",
            hint="wait until VMware has done that, or consolidate the disks (Snapshots, "
            "Consolidate); then make a snapshot anew",
        )
    tops = {_last(drive) for drive in written}
    if changing := [drive.node for drive in read if _last(drive) in tops]:
        raise SourceError(
            f"{folder.vmx}: the VM is running ({clean(left)} is there), and writes to disks "
            f"that no snapshot keeps: {', '.join(changing)}",
            id="source-running",
            hint="shut it down; independent disks are in no snapshot",
        )


def _last(drive: Drive) -> str:
    return drive.file.rpartition("/")[2]


def sign_of_running(folder: VmFolder, entries: Mapping[str, Kind]) -> str | None:
    """A file of a running VM: locks of Workstation and of ESXi, its memory, its swap file."""
    return next(_signs(folder, entries), None)


def _signs(folder: VmFolder, entries: Mapping[str, Kind]) -> Iterator[str]:
    alone = sum(name.lower().endswith(ENDINGS) for name in entries) == 1
    for name in sorted(entries):
        ours = alone or name.startswith((folder.stem, f"vmx-{folder.stem}"))
        if ours and _tells_of_running(name, folder, entries):
            yield name


def _tells_of_running(file: str, folder: VmFolder, entries: Mapping[str, Kind]) -> bool:
    name = file.lower()
    if name.startswith(".lck-"):
        return True
    if name.endswith((".vmx.lck", ".vmdk.lck")):
        return entries[file] != Kind.FOLDER or bool(folder.entries(file))
    memory = name.endswith(".vmem") and not _OF_SNAPSHOT.search(name)
    suspended = memory and file[: -len("vmem")] + "vmss" in entries
    return name.endswith(".vswp") or (memory and not suspended)
