"""Which operating systems are on the disks? A few mounts and small reads.

libguestfs's own inspection takes 5 to 12 s under emulation for the same answer. Candidates are
mounted read-only and looked at; snapshots and recovery partitions are no systems of their own.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from conversion.files import decode, read_capped
from conversion.identify import identify_mounted
from conversion.volumes import Filesystem, Volumes
from v2v.errors import GuestError
from v2v.types import GuestOS

log = logging.getLogger(__name__)

LINUX_TYPES = ("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "reiserfs", "jfs")
# Filesystems of systems that are recognised by them alone: the appliance cannot mount them.
FOREIGN_TYPES = {"ufs": "a BSD", "zfs_member": "a system on ZFS", "apfs": "macOS"}
# Subvolumes that distributions install to; any other is a snapshot, or not a system.
BTRFS_ROOTS = ("@", "@rootfs", "root", "rootfs")
WINDOWS = ("/Windows/System32", "/WINDOWS/system32", "/WINNT/system32", "/windows/system32")
HIBERFILE = ("/hiberfil.sys", "/Hiberfil.sys", "/HIBERFIL.SYS")
USR_IN_FSTAB = re.compile(r"(?m)^[ \t]*[^#\s]\S*[ \t]+/usr/?[ \t]")
UNKNOWN = GuestOS("unknown", "unknown", "", "unknown", "unknown")


@dataclass(frozen=True, slots=True)
class Root:
    """A root filesystem. `device` may be a btrfs subvolume: btrfsvol:/dev/sda2/@."""

    device: str
    os: GuestOS
    hibernated: bool = False  # known here for Windows only

    def __str__(self) -> str:
        return f"{self.device} ({self.os.product})"


def find_roots(g: Any, volumes: Volumes) -> tuple[Root, ...]:
    """Every operating system on the filesystems, in their order. Nothing stays mounted."""
    roots: list[Root] = []
    seen: set[str] = set()  # UUIDs: an LVM snapshot and the other half of a btrfs have the same
    for fs in volumes.filesystems:
        if fs.uuid and fs.uuid in seen:
            continue
        if root := _root_on(g, fs):
            roots.append(root)
            seen.add(fs.uuid)
    # Beside a Linux or a Windows, these are data: a ZFS pool is no second system.
    own = [root for root in roots if root.os.distro not in FOREIGN_TYPES]
    return tuple(own or roots)


def _root_on(g: Any, fs: Filesystem) -> Root | None:
    if fs.type in FOREIGN_TYPES:
        return Root(fs.device, GuestOS("unknown", fs.type, "", FOREIGN_TYPES[fs.type], "unknown"))
    if fs.type == "ntfs":
        return _look(g, fs.device, _windows)
    if fs.type not in LINUX_TYPES:
        return None
    for mountable in _mountables(g, fs):
        if root := _look(g, mountable, _linux):
            return root
    return None


def _mountables(g: Any, fs: Filesystem) -> Iterator[str]:
    """The filesystem; then, where it has them, the subvolumes that can hold a system."""
    yield fs.device
    if fs.type == "btrfs":
        paths = _subvolumes(g, fs.device)
        yield from (f"btrfsvol:{fs.device}/{path}" for path in BTRFS_ROOTS if path in paths)


def _subvolumes(g: Any, device: str) -> set[str]:
    try:
        return {volume["btrfssubvolume_path"] for volume in g.btrfs_subvolume_list(device)}
    except (RuntimeError, UnicodeDecodeError) as exc:  # half of a pair, damaged, or oddly named
        log.debug("%s: the subvolumes cannot be listed: %s", device, exc)
        return set()


def _look(g: Any, mountable: str, judge: Any) -> Root | None:
    try:
        g.mount_ro(mountable, "/")
    except RuntimeError as exc:
        log.debug("%s cannot be mounted: %s", mountable, exc)
        return None
    try:
        found: Root | None = judge(g, mountable)
        return found
    finally:
        g.umount("/")


def _linux(g: Any, device: str) -> Root | None:
    if not g.is_dir("/etc"):
        return None
    programs = any(g.is_dir(path, followsymlinks=True) for path in ("/bin", "/sbin", "/usr/bin"))
    programs = programs or _usr_is_elsewhere(g)
    marks = ("/etc/fstab", "/etc/os-release", "/usr/lib/os-release", "/etc/debian_version")
    if not programs or not any(g.exists(path) for path in marks):
        return None
    return Root(device, identify_mounted(g))


def _usr_is_elsewhere(g: Any) -> bool:
    """/bin is a link into /usr, which may be a filesystem of its own."""
    return USR_IN_FSTAB.search(decode(read_capped(g, "/etc/fstab") or b"")) is not None


def _windows(g: Any, device: str) -> Root | None:
    if not any(g.is_dir(path) for path in WINDOWS):
        return None
    os = GuestOS("windows", "windows", "", "Microsoft Windows", "unknown")
    return Root(device, os, hibernated=_windows_sleeps(g))


def _windows_sleeps(g: Any) -> bool:
    """A hibernation file starts with HIBR while it holds a session, Fast Startup's included."""
    heads = (read_capped(g, path, 4) for path in HIBERFILE)
    return any((head or b"").upper() == b"HIBR" for head in heads)


def choose_root(roots: Sequence[Root], wanted: str, locked: Sequence[Filesystem]) -> Root:
    """The root that --root asks for: ask, single, first or a device. Raises GuestError."""
    if not roots:
        raise nothing_found(locked)
    if wanted in ("ask", "single"):
        if len(roots) > 1:
            raise GuestError(
                f"the guest has {len(roots)} operating systems: {_listed(roots)}",
                id="root-ambiguous",
                hint=f"choose one: --root {roots[0].device}; or take the first: --root first",
            )
        return roots[0]
    if wanted == "first":
        return roots[0]
    for root in roots:
        if wanted in (root.device, plain_device(root.device)):
            return root
    raise GuestError(
        f"--root {wanted}: no operating system there",
        id="root-unknown",
        hint=f"the guest has: {_listed(roots)}",
    )


def nothing_found(locked: Sequence[Filesystem]) -> GuestError:
    if locked:
        devices = ", ".join(f"{fs.device} ({fs.type}, UUID {fs.uuid})" for fs in locked)
        return GuestError(
            f"encrypted, and no key opens it: {devices}",
            id="guest-encrypted",
            hint=f"write the passphrase to a file: --key {locked[0].device}:file:PATH",
        )
    return GuestError(
        "no operating system was found on the disks",
        id="no-os",
        hint="are these all of the guest's disks? To copy them unconverted, add --no-convert",
    )


def plain_device(device: str) -> str:
    """btrfsvol:/dev/sda2/@ as /dev/sda2."""
    if device.startswith("btrfsvol:"):
        return "/".join(device.removeprefix("btrfsvol:").split("/")[:3])
    return device


def _listed(roots: Sequence[Root]) -> str:
    return ", ".join(str(root) for root in roots)
