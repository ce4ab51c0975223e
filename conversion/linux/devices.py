"""Disks get the names they have on the target, in every file of the guest that names them.

/dev/sda1 in a guest of VMware has another name on virtio. Each such name becomes the UUID of what
is on it, which no controller changes; where there is none, the name the target will give.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from conversion.actions import Action, EditFile
from conversion.guest import Guest
from conversion.linux import grub
from conversion.linux.device_names import (
    ARGUMENTS,
    PLACES,
    DeviceMap,
    Where,
    names_disks,
    remap_file,
    unique_specs,
)
from conversion.linux.kernels import best_bus, chosen_kernel
from v2v.types import BlockBus, Change


def device_map(guest: Guest) -> DeviceMap:
    """The map for this guest; reads the UUIDs of everything on its disks, once."""
    if "device map" not in guest.facts:
        disks = guest.source.disks
        guest.facts["device map"] = DeviceMap(
            tuple(disk.controller for disk in disks), _prefix(guest), _specs(guest, len(disks))
        )
    found: DeviceMap = guest.facts["device map"]
    return found


def _prefix(guest: Guest) -> str:
    bus = best_bus(chosen_kernel(guest), guest.options.block_bus)
    return "vd" if bus is BlockBus.VIRTIO_BLK else "sd"


def _specs(guest: Guest, disks: int) -> dict[tuple[int, int], str]:
    """What names each partition whatever the hardware; the appliance has the disks in order."""
    known = guest.g.list_devices()[:disks]
    tags: dict[tuple[int, int], dict[str, str]] = {}
    for disk, device in enumerate(known):
        for name in [device, *_partitions_of(guest, device)]:
            number = int(name[len(device) :].lstrip("p") or 0)
            tags[disk, number] = _blkid(guest, name)
    return unique_specs(tags)


def _blkid(guest: Guest, name: str) -> dict[str, str]:
    try:
        return dict(guest.g.blkid(name))
    except RuntimeError:  # nothing on it that blkid knows
        guest.run.cancel.check()
        return {}


def _partitions_of(guest: Guest, device: str) -> list[str]:
    pattern = re.compile(re.escape(device) + r"p?\d+")
    return [name for name in guest.g.list_partitions() if pattern.fullmatch(name)]


def remap_devices(guest: Guest) -> Iterable[Action]:
    """Step: give disks the names they have on the target, in every file that names them."""
    places = [*PLACES, *_boot_loader_places(guest)]
    for where in places:
        for pattern in where.patterns:
            for path in guest.glob(pattern) if "*" in pattern else [pattern]:
                yield from _remap_one(guest, path, where)


def _boot_loader_places(guest: Guest) -> list[Where]:
    paths = (*grub.menu_files(guest), *grub.settings_files(guest))
    # Without an initramfs it is the kernel that finds root=, and it knows no UUID of a filesystem.
    stable = chosen_kernel(guest).initramfs is not None
    return [Where(paths, (ARGUMENTS,), stable=stable)] if paths else []


def _remap_one(guest: Guest, path: str, where: Where) -> Iterable[Action]:
    text = guest.read_text(path)
    if not text or "/dev/" not in text or not names_disks(text, where):
        return
    names = device_map(guest)
    result = remap_file(text, where, names)
    for device in result.unknown:
        guest.warn(
            f"{path} names {device}, and the guest has no such disk",
            id="device-unknown",
            hint=f"correct {path} in the converted guest if it matters",
        )
    if result.text != text:
        moved = ", ".join(f"{old} to {new}" for old, new in result.moved.items())
        yield EditFile(
            path,
            lambda old: remap_file(old, where, names).text,
            Change(f"Remapped {moved}", "disks have other names on the new hardware", path),
        )
