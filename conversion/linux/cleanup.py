"""Caches of device names, which the guest makes anew."""

from __future__ import annotations

from collections.abc import Iterable

from conversion.actions import Action, RemoveFile
from conversion.guest import Guest
from v2v.types import Change

CACHES = (
    "/etc/blkid.tab",
    "/etc/blkid.tab.old",
    "/etc/blkid/blkid.tab",
    "/etc/blkid/blkid.tab.old",
    "/var/lib/blkid/blkid.tab",
    "/etc/lvm/cache/.cache",
    "/etc/lvm/devices/system.devices",  # LVM would use no disk but those named by the old hardware
)


def remove_caches(guest: Guest) -> Iterable[Action]:
    """Step: remove caches that name the old hardware's disks."""
    for path in CACHES:
        if guest.g.is_file(path):
            change = Change("Removed a cache of device names", "the disks have other names", path)
            yield RemoveFile(path, change)
