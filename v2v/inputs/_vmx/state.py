"""Whether a VM of VMware is shut down, as far as the files in its folder tell."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from v2v.errors import SourceError
from v2v.inputs._vmx.text import Vmx
from v2v.run import Run

MAX_FILES = 10_000  # of a folder that are looked at
_OF_SNAPSHOT = re.compile(r"-Snapshot\d+\.vmem$", re.IGNORECASE)


def check_shut_down(vmx: Vmx, path: Path, run: Run, *, snapshot: bool) -> None:
    """Refuse a VM that runs; one that is suspended, unless a `snapshot` of it is read."""
    state = vmx.text("checkpoint.vmState")
    if state and not snapshot:
        raise SourceError(
            f"{path}: the VM is suspended ({state[:80]})",
            id="source-suspended",
            hint="resume it in VMware and shut it down; what is in its memory is not on the disks",
        )
    if left := next(_signs(path), None):
        raise SourceError(
            f"{path}: the VM may be running, or was when its folder was copied: {left} is there",
            id="source-running",
            hint=f"shut it down, and copy the folder again if it is a copy; if it is off, delete "
            f"what is left over: {left}",
        )
    if vmx.flag("cleanShutdown") is False:
        run.warn(
            f"{path}: the VM was not shut down cleanly, or ran when its folder was copied",
            id="vmx-not-shut-down",
            hint="if it ran, its disks are torn: shut it down, and copy the folder again",
        )


def _signs(path: Path) -> Iterator[Path]:
    """Files of a running VM: locks of Workstation and of ESXi on NFS, its memory, its swap file."""
    try:
        files = sorted(islice(path.parent.iterdir(), MAX_FILES))
    except OSError:
        return
    alone = sum(file.suffix.lower() == ".vmx" for file in files) == 1
    for file in files:
        ours = alone or file.name.startswith((path.stem, f"vmx-{path.stem}"))
        if ours and _tells_of_running(file):
            yield file


def _tells_of_running(file: Path) -> bool:
    name = file.name.lower()
    if name.startswith(".lck-"):
        return True
    if name.endswith((".vmx.lck", ".vmdk.lck")):
        return _holds_something(file)
    memory = name.endswith(".vmem") and not _OF_SNAPSHOT.search(name)
    suspended = memory and file.with_suffix(".vmss").exists()
    return name.endswith(".vswp") or (memory and not suspended)


def _holds_something(folder: Path) -> bool:
    try:
        return not folder.is_dir() or any(folder.iterdir())
    except OSError:
        return True
