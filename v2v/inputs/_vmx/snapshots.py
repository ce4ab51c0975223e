"""The snapshots of a VM of VMware: the .vmsd file beside its .vmx."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

from v2v.errors import SourceError, UsageError
from v2v.inputs._vmx.drives import Drive, parse_node
from v2v.inputs._vmx.folder import VmFolder
from v2v.inputs._vmx.text import Vmx, parse_vmx
from v2v.options import did_you_mean
from v2v.run import Run
from v2v.texts import clean

MAX_SNAPSHOTS = 1000
CONSOLIDATE_HELPER = "Consolidate Helper"  # ESXi's own snapshot while it merges those of a VM
_SNAPSHOT = re.compile(r"snapshot(\d{1,4})\.uid", re.ASCII)
_DISK = r"snapshot{}\.disk(\d{{1,4}})\.filename"


@dataclass(frozen=True, slots=True)
class Snapshot:
    uid: int  # grows with time
    name: str
    disks: tuple[Drive, ...]  # as they were: the files are not written since


@dataclass(frozen=True, slots=True)
class Listed:
    """What the .vmsd file tells."""

    snapshots: tuple[Snapshot, ...] = ()  # oldest first
    consolidating: bool = False  # files of deleted snapshots wait to be merged, or are being


def list_snapshots(folder: VmFolder, run: Run, *, needed: bool) -> Listed:
    """From the .vmsd file beside the .vmx. Where none is asked for, a damaged file is only told."""
    name = _vmsd(folder)
    if name is None:
        return Listed()
    try:
        return _listed(parse_vmx(folder.read(name), folder.shown(name), run))
    except SourceError as exc:
        if needed:
            raise
        run.warn(exc.message, id=exc.id, hint="the names of snapshots are not known")
        return Listed()


def _vmsd(folder: VmFolder) -> str | None:
    """That of the same name; else the only one in the folder of one VM."""
    names = folder.entries()
    found = [name for name in names if name.endswith(".vmsd")]
    if f"{folder.stem}.vmsd" in found:
        return f"{folder.stem}.vmsd"
    alone = len(found) == 1 and sum(name.endswith(".vmx") for name in names) == 1
    return found[0] if alone else None


def _listed(vmsd: Vmx) -> Listed:
    snapshots = read_snapshots(vmsd)
    helper = any(one.name.startswith(CONSOLIDATE_HELPER) for one in snapshots)
    return Listed(snapshots, helper or vmsd.flag("snapshot.needConsolidate") is True)


def read_snapshots(vmsd: Vmx) -> tuple[Snapshot, ...]:
    """Oldest first."""
    numbers = [match[1] for match in vmsd.matching(_SNAPSHOT)][:MAX_SNAPSHOTS]
    count = vmsd.number("snapshot.numSnapshots")
    there = [number for number in numbers if count is None or int(number) < count]
    return tuple(sorted((_snapshot(vmsd, number) for number in there), key=lambda one: one.uid))


def _snapshot(vmsd: Vmx, number: str) -> Snapshot:
    key = f"snapshot{number}"
    uid = vmsd.number(f"{key}.uid")
    disks = []
    for match in vmsd.matching(re.compile(_DISK.format(number), re.ASCII)):
        drive = parse_node(vmsd.text(f"{key}.disk{match[1]}.node"))
        if drive:
            disks.append(replace(drive, file=vmsd.text(match[0])))
    name = clean(vmsd.text(f"{key}.displayName")) or f"snapshot {uid or number}"
    return Snapshot(uid if uid is not None else int(number), name, tuple(sorted(disks)))


def find_snapshot(snapshots: Sequence[Snapshot], word: str, name: str) -> Snapshot:
    """The one of that name, of uid=N, or of that number. `name` is the VM's file, for messages."""
    found = [one for one in snapshots if _plain(one.name) == _plain(word)]
    if len(found) != 1:
        found = [one for one in snapshots if f"uid={one.uid}" == word] or found
    found = found or [one for one in snapshots if str(one.uid) == word]
    if len(found) == 1:
        return found[0]
    if found:
        numbers = ", ".join(f"uid={one.uid}" for one in found)
        raise UsageError(
            f"{name} has {len(found)} snapshots called {word!r}",
            id="snapshot-ambiguous",
            hint=f"give the number of one instead of the name: {numbers}",
        )
    names = [one.name for one in snapshots]
    raise UsageError(
        f"{name} has no snapshot {word!r}",
        id="snapshot-unknown",
        hint=did_you_mean(word, names)
        or (f"it has {', '.join(names)}" if names else "it has none: leave out -io snapshot"),
    )


def _plain(text: str) -> str:
    """macOS writes é as two characters, others as one."""
    return unicodedata.normalize("NFC", text)


def drives_then(snapshot: Snapshot, now: Sequence[Drive], name: str, run: Run) -> tuple[Drive, ...]:
    """The VM's drives with their files as of the snapshot.

    Independent disks are in no snapshot and stay as they are. Others that are not in it came later.
    """
    then = {drive.node for drive in snapshot.disks}
    kept = [drive for drive in now if drive.independent and drive.node not in then]
    later = [d for d in now if not d.independent and d.node not in then]
    if later:
        run.warn(
            f"{name}: the disks at {', '.join(d.node for d in later)} were not there when the "
            f"snapshot {snapshot.name!r} was made: left out",
            id="snapshot-without-disk",
            hint="without -io snapshot the VM is read with all its disks, as it is now",
        )
    return tuple(sorted([*snapshot.disks, *kept]))
