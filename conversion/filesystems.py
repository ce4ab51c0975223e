"""Are the guest's filesystems in order? Checked before conversion and after it.

The check is the one the guest's own boot would make: journals are replayed, what can be repaired
safely is, and a filesystem that noted errors is checked in full. A full check of every filesystem
would read all metadata from a source that may be far away.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Set
from typing import Any

from conversion.inspection import Root
from conversion.problems import Problems
from conversion.volumes import HIBERNATED, Filesystem, Volumes
from v2v.errors import GuestError
from v2v.types import Finding

log = logging.getLogger(__name__)

FSCK_TYPES = ("ext2", "ext3", "ext4", "vfat")
UNCORRECTED = ~0b11  # fsck(8): 1 and 2 mean that errors were corrected; all else that they were not
REMEDIES = {
    "ext": "boot the source guest with its fsck enabled, or run e2fsck on the disk, and shut down",
    "xfs": "mount and unmount it in the source guest, or run xfs_repair there, and shut down",
    "btrfs": "run `btrfs check` in the source guest's rescue system",
    "vfat": "run fsck.fat on it in the source guest",
}
SLEEP_REMEDY = "start the source guest, let it wake up, and shut it down"


def check_volumes(g: Any, volumes: Volumes) -> dict[str, GuestError]:
    """Check every filesystem: {device: what is wrong with it}. Nothing may be mounted."""
    found = ((fs.device, check(g, fs)) for fs in volumes.filesystems)
    return {device: error for device, error in found if error is not None}


def check(g: Any, fs: Filesystem) -> GuestError | None:
    """Check one filesystem, repairing what is safe to repair."""
    try:
        if fs.type in FSCK_TYPES:
            return _fsck(g, fs)
        if fs.type == "xfs":
            return _xfs(g, fs)
    except RuntimeError as exc:
        return _dirty(fs, str(exc))
    return None


def _fsck(g: Any, fs: Filesystem) -> GuestError | None:
    status = g.fsck(fs.type, fs.device)
    if status & 1:
        log.info("%s: fsck corrected errors", fs.device)
    return _dirty(fs, f"fsck ended with {status}") if status & UNCORRECTED else None


def _xfs(g: Any, fs: Filesystem) -> GuestError | None:
    """Mounting replays the log; xfs_repair then finds what mounting does not."""
    g.mount(fs.device, "/")
    g.umount("/")
    if not g.feature_available(["xfs"]):
        return None
    return _dirty(fs, "xfs_repair found errors") if g.xfs_repair(fs.device, nomodify=True) else None


def _dirty(fs: Filesystem, why: str) -> GuestError:
    kind = "ext" if fs.type.startswith("ext") else fs.type
    return GuestError(
        f"{fs.device} ({fs.type}) has errors that cannot be repaired safely: {why[-300:]}",
        id="filesystem-dirty",
        hint=REMEDIES.get(kind),
    )


def refuse_if_asleep(volumes: Volumes, root: Root | None, problems: Problems) -> None:
    """A hibernated guest keeps filesystems in its memory; changing the disks would wreck them."""
    for fs in volumes.filesystems:
        if fs.type == HIBERNATED:
            problems.refuse(asleep(f"the swap area {fs.device} holds the memory of its session"))
    if root is not None and root.hibernated:
        problems.refuse(asleep(f"Windows on {root.device} holds a session (or Fast Startup is on)"))


def asleep(where: str) -> GuestError:
    return GuestError(f"the guest is hibernated: {where}", id="guest-hibernated", hint=SLEEP_REMEDY)


def warn_of_others(errors: Mapping[str, GuestError], mounted: Set[str], problems: Problems) -> None:
    """Errors of filesystems that the chosen guest does not mount are findings."""
    for device, error in errors.items():
        if device not in mounted:
            problems.warn(error.message, id=error.id, hint=error.hint)


def check_again(g: Any, volumes: Volumes, devices: Set[str]) -> None:
    """After conversion: what was written must have left the filesystems in order."""
    for fs in volumes.filesystems:
        if fs.device in devices and fs.type in FSCK_TYPES:
            error = check(g, fs)
            if error is not None:
                raise GuestError(
                    f"after conversion: {error.message}",
                    id="filesystem-broken",
                    hint="the source is unchanged; the job's log tells what was done",
                )


def trim(g: Any, mounts: Mapping[str, str], problems: Problems) -> None:
    """Give the free space of each mounted filesystem back, so that it is not copied."""
    trimmed: set[str] = set()
    for mountpoint, device in mounts.items():
        if device in trimmed:
            continue
        trimmed.add(device)
        try:
            g.fstrim(mountpoint)
        except RuntimeError as exc:
            text = f"the free space of {mountpoint} cannot be told from data: {str(exc)[-200:]}"
            hint = "it is copied too, unless it reads as zeroes"
            problems.add(Finding("info", "trim-failed", text, hint))
