"""Everything on the disks that may hold a filesystem: partitions, logical volumes, LUKS, arrays.

The appliance has activated logical volumes and md arrays that need no key when it comes up.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from conversion import decrypt
from conversion.linux.device_names import DeviceMap, number_to_letters

log = logging.getLogger(__name__)

LVM_MEMBER = "LVM2_member"
ENCRYPTED = ("crypto_LUKS", "BitLocker")
HIBERNATED = "swsuspend"  # blkid's type of a swap area that holds the memory of a sleeping system


@dataclass(frozen=True, slots=True)
class Filesystem:
    """Something with a signature. `type` is blkid's: ext4, xfs, swap, crypto_LUKS, ..."""

    device: str  # as the appliance names it: /dev/sda1, /dev/vg/root, /dev/mapper/v2v-0
    type: str
    uuid: str = ""
    label: str = ""
    partuuid: str = ""
    partlabel: str = ""
    container: str = ""  # the encrypted device it was found in
    lv_uuid: str = ""  # of a logical volume, without hyphens


@dataclass(frozen=True, slots=True)
class Volumes:
    filesystems: tuple[Filesystem, ...]
    locked: tuple[Filesystem, ...]  # encrypted, and no key opens them

    def on(self, device: str) -> Filesystem | None:
        return next((fs for fs in self.filesystems if fs.device == device), None)


def find_volumes(g: Any, disks: int, keys: Sequence[decrypt.Key]) -> Volumes:
    """Look at every device once, opening what the keys open. Costs about 0.1 s a device."""
    found = [probe(g, device) for device in _plain_devices(g, disks)]
    opened, locked = _open(g, found, keys, 0)
    found += opened
    if any(fs.type == LVM_MEMBER for fs in opened):
        g.lvm_scan(True)
    if any(fs.type == LVM_MEMBER for fs in found):
        logical = [_logical(g, device) for device in g.lvs()]
        inside, more = _open(g, logical, keys, len(opened))
        found += [*logical, *inside]
        locked += more
    return Volumes(tuple(fs for fs in found if fs.type), tuple(locked))


def _open(
    g: Any, found: Sequence[Filesystem], keys: Sequence[decrypt.Key], first: int
) -> tuple[list[Filesystem], list[Filesystem]]:
    """What is in the encrypted ones of `found`, and which of them stay locked."""
    encrypted = [fs for fs in found if fs.type in ENCRYPTED]
    opened, locked = decrypt.open_all(g, encrypted, keys, first)
    inside = [replace(probe(g, device), container=of.device) for device, of in opened.items()]
    return inside, locked


def _logical(g: Any, device: str) -> Filesystem:
    return replace(probe(g, device), lv_uuid=g.lvuuid(device).replace("-", ""))


def _plain_devices(g: Any, disks: int) -> list[str]:
    """Partitions, arrays, and disks that are not partitioned."""
    partitions = g.list_partitions()
    whole = [disk_name(i) for i in range(disks)]
    bare = [disk for disk in whole if not any(p.startswith(disk) for p in partitions)]
    return sorted({*partitions, *bare, *g.list_md_devices()})


def disk_name(index: int) -> str:
    """The appliance's name of disk `index`."""
    return f"/dev/sd{number_to_letters(index)}"


def probe(g: Any, device: str) -> Filesystem:
    """What blkid says of a device; its type is empty if that is nothing."""
    try:
        tags: dict[str, str] = g.blkid(device)
    except (RuntimeError, UnicodeDecodeError) as exc:  # no signature, or two that contradict
        log.debug("blkid %s: %s", device, exc)
        tags = {}
    return Filesystem(
        device=device,
        type=tags.get("TYPE", ""),
        uuid=tags.get("UUID", ""),
        label=_unescape(tags.get("LABEL", "")),
        partuuid=tags.get("PART_ENTRY_UUID", ""),
        partlabel=_unescape(tags.get("PART_ENTRY_NAME", "")),
    )


def _unescape(value: str) -> str:
    """`blkid -o export` writes a backslash before spaces and quotes."""
    return re.sub(r"\\(.)", r"\1", value)


# From the guest's names to devices ----------------------------------------------------------------

TAGS: dict[str, Callable[[Filesystem], str]] = {
    "UUID": lambda fs: fs.uuid,
    "LABEL": lambda fs: fs.label,
    "PARTUUID": lambda fs: fs.partuuid,
    "PARTLABEL": lambda fs: fs.partlabel,
}


DM_NAME = "/dev/disk/by-id/dm-name-"
DM_UUID = "/dev/disk/by-id/dm-uuid-LVM-"  # then the UUIDs of group and volume: Ubuntu's installer


def resolve(
    spec: str,
    volumes: Volumes,
    controllers: Sequence[str | None],
    mapped: Mapping[str, str],
) -> Filesystem | None:
    """The filesystem that the guest calls `spec` in its fstab, or None.

    controllers: of the source's disks, in order. mapped: what crypttab calls the encrypted
    devices: name: spec of the container.
    """
    spec = _as_tag(spec).replace(DM_NAME, "/dev/mapper/")
    if spec.startswith(DM_UUID):
        uuids = (fs for fs in volumes.filesystems if fs.lv_uuid and spec.endswith(fs.lv_uuid))
        return next(uuids, None)
    tag, equals, value = spec.partition("=")
    if equals and tag in TAGS:
        return _unique(volumes, tag, value.strip("\"'"))
    if spec.startswith("/dev/mapper/") and (container := mapped.get(spec[12:])):
        outer = resolve(container, volumes, controllers, {})
        inside = (fs for fs in volumes.filesystems if outer and fs.container == outer.device)
        return next(inside, None)
    for device in _device_names(spec, controllers):
        if found := volumes.on(device):
            return found
    return None


def _as_tag(spec: str) -> str:
    """/dev/disk/by-uuid/X as UUID=X, and so on for the other tags."""
    for tag in TAGS:
        prefix = f"/dev/disk/by-{tag.lower()}/"
        if spec.startswith(prefix):
            return f"{tag}={spec.removeprefix(prefix)}"
    return spec


def _unique(volumes: Volumes, tag: str, value: str) -> Filesystem | None:
    """The first that has the tag: a snapshot or the second half of a mirror comes after it."""
    for fs in volumes.filesystems:
        if value and TAGS[tag](fs).casefold() == value.casefold():
            return fs
    return None


def _device_names(spec: str, controllers: Sequence[str | None]) -> Iterator[str]:
    place = DeviceMap(tuple(controllers)).find(spec)
    if place is not None:
        disk, partition = place
        yield f"{disk_name(disk)}{partition or ''}"
        return
    yield spec
    if spec.startswith("/dev/mapper/"):
        yield from _lvm_names(spec.removeprefix("/dev/mapper/"))


def _lvm_names(name: str) -> Iterable[str]:
    """vg-lv as /dev/vg/lv; device-mapper writes a hyphen inside a name twice."""
    parts = name.replace("--", "\0").split("-")
    if len(parts) == 2:
        group, volume = (part.replace("\0", "-") for part in parts)
        yield f"/dev/{group}/{volume}"
