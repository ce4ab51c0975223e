"""Mounting a guest as its own fstab does, below / of the appliance.

Only the root must succeed; what else cannot be mounted is a finding. Options of the guest are not
used, except for the subvolume of a btrfs.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conversion.disk_head import DiskHead
from conversion.files import clean, decode, read_capped
from conversion.filesystems import asleep
from conversion.inspection import LINUX_TYPES, plain_device
from conversion.problems import Problems
from conversion.volumes import Filesystem, Volumes, disk_name, resolve
from v2v.errors import GuestError

log = logging.getLogger(__name__)

MOUNTED_TYPES = (*LINUX_TYPES, "vfat")
# Types that are not on the guest's own disks, or that nobody writes to.
SKIPPED_TYPES = ("nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "9p", "iso9660", "udf")
MAX_ENTRIES = 200  # of an fstab
ESP_MOUNTPOINTS = ("/boot/efi", "/efi")
SWAP_MAGIC = slice(4086, 4096)  # where mkswap(8) and the kernel's hibernation write their mark


@dataclass(frozen=True, slots=True)
class FstabEntry:
    spec: str
    mountpoint: str
    type: str
    options: tuple[str, ...]

    @property
    def subvolume(self) -> str | None:
        for option in self.options:
            if option.startswith("subvol="):
                return option.removeprefix("subvol=").strip("/")
        return None


def parse_fstab(text: str) -> tuple[FstabEntry, ...]:
    """The entries of an fstab(5); spaces in its fields are written as octal 040."""
    entries = []
    for line in text.splitlines():
        words = [_unescape(word) for word in line.split()]
        if len(words) >= 2 and not words[0].startswith("#"):
            kind = words[2] if len(words) > 2 else "auto"
            options = tuple(words[3].split(",")) if len(words) > 3 else ()
            entries.append(FstabEntry(words[0], words[1], kind, options))
    return tuple(entries[:MAX_ENTRIES])


def parse_crypttab(text: str) -> dict[str, str]:
    """{name: spec of the encrypted device} of a crypttab(5)."""
    rows = (line.split() for line in text.splitlines())
    return {row[0]: row[1] for row in rows if len(row) >= 2 and not row[0].startswith("#")}


def _unescape(word: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\134", "\\")):
        word = word.replace(code, character)
    return word


def wanted(entries: Sequence[FstabEntry]) -> list[FstabEntry]:
    """The entries to mount below the root, parents first."""
    chosen: dict[str, FstabEntry] = {}
    for entry in entries:
        if _is_wanted(entry):
            chosen[entry.mountpoint.rstrip("/")] = entry
    return [chosen[path] for path in sorted(chosen, key=lambda path: path.split("/"))]


def _is_wanted(entry: FstabEntry) -> bool:
    path = entry.mountpoint
    if not path.startswith("/") or path.strip("/") == "" or ".." in path.split("/"):
        return False
    if set(entry.type.split(",")) & set(SKIPPED_TYPES) or {"bind", "rbind", "loop"} & set(
        entry.options
    ):
        return False
    if "noauto" in entry.options and not path.startswith("/boot"):
        return False
    return entry.spec.startswith("/dev/") or "=" in entry.spec


def mount_root(g: Any, device: str) -> None:
    try:
        g.mount(device, "/")
    except RuntimeError as exc:
        raise GuestError(
            f"the root filesystem {device} cannot be mounted: {str(exc)[-300:]}",
            id="root-unmountable",
            hint="check the filesystem in the source guest, and shut it down cleanly",
        ) from exc


def mount_all(
    g: Any,
    root: str,
    volumes: Volumes,
    controllers: Sequence[str | None],
    heads: Sequence[DiskHead],
    errors: Mapping[str, GuestError],
    problems: Problems,
) -> dict[str, str]:
    """Mount the root and what its fstab names: {mountpoint: device}.

    errors: what the check found wrong, by device; that of a filesystem to be mounted is refused.
    """
    if error := errors.get(plain_device(root)):
        problems.refuse(error)
    mount_root(g, root)
    mounts = {"/": root}
    entries = parse_fstab(decode(read_capped(g, "/etc/fstab") or b""))
    mapped = parse_crypttab(decode(read_capped(g, "/etc/crypttab") or b""))
    for entry in wanted(entries):
        fs = resolve(entry.spec, volumes, controllers, mapped)
        if fs is None:
            _not_found(entry, volumes, problems)
        elif fs.device in errors:
            problems.refuse(errors[fs.device])
        elif fs.type in MOUNTED_TYPES:
            _mount(g, fs, entry, mounts, problems)
    _mount_esp(g, volumes, heads, mounts)
    _refuse_sleeping_swap_files(g, entries, problems)
    return mounts


def _not_found(entry: FstabEntry, volumes: Volumes, problems: Problems) -> None:
    locked = ", ".join(fs.device for fs in volumes.locked)
    problems.warn(
        f"{clean(entry.mountpoint)} is not mounted: no disk has {clean(entry.spec)}",
        id="filesystem-missing",
        hint=f"it may be on {locked}, which no --key opens" if locked else None,
    )


def _mount(
    g: Any, fs: Filesystem, entry: FstabEntry, mounts: dict[str, str], problems: Problems
) -> None:
    device = fs.device
    if fs.type == "btrfs" and entry.subvolume:
        device = f"btrfsvol:{fs.device}/{entry.subvolume}"
    try:
        path = g.realpath(entry.mountpoint)  # the appliance's mount would follow a link out of /
        g.mount(device, path)
    except (RuntimeError, UnicodeError) as exc:
        problems.warn(
            f"{clean(entry.mountpoint)} ({fs.device}) cannot be mounted: {str(exc)[-200:]}",
            id="mount-failed",
        )
        return
    mounts[path] = device


def _mount_esp(g: Any, volumes: Volumes, heads: Sequence[DiskHead], mounts: dict[str, str]) -> None:
    """systemd mounts the EFI system partition although no fstab names it."""
    esps = [f"{disk_name(i)}{head.esp}" for i, head in enumerate(heads) if head.esp]
    found = [fs for fs in map(volumes.on, esps) if fs and fs.type == "vfat"]
    if not found or any(path in mounts for path in ESP_MOUNTPOINTS):
        return
    if any(fs.device in mounts.values() for fs in found):
        return
    for path in ESP_MOUNTPOINTS:
        if g.is_dir(path) and g.realpath(path) == path:
            g.mount(found[0].device, path)
            mounts[path] = found[0].device
            return


def _refuse_sleeping_swap_files(g: Any, entries: Sequence[FstabEntry], problems: Problems) -> None:
    for entry in entries:
        if entry.type == "swap" and entry.spec.startswith("/") and _sleeps(g, entry.spec):
            problems.refuse(asleep(f"the swap file {clean(entry.spec)} holds its session"))


def _sleeps(g: Any, path: str) -> bool:
    return (read_capped(g, path, SWAP_MAGIC.stop) or b"")[SWAP_MAGIC].startswith(b"S1SUSPEND")


def mount_again(g: Any, mounts: Mapping[str, str]) -> None:
    """Mount what mount_all mounted before, in another appliance."""
    for path, device in mounts.items():
        g.mount(device, path)


def refuse_read_only(g: Any, problems: Problems) -> None:
    """Try to write on the root: a filesystem with errors may have fallen back to reading only."""
    path = "/.v2v-write-test"
    try:
        g.touch(path)
        g.rm(path)
    except RuntimeError as exc:
        problems.refuse(
            GuestError(
                f"the root filesystem cannot be written: {str(exc)[-200:]}",
                id="root-read-only",
                hint="check the filesystem in the source guest, and shut it down cleanly",
            )
        )
