"""Names of disks: what the source called them, and what is true on any hardware.

Pure functions on texts; `devices` applies them to a guest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

# The controllers whose disks a kind of name counts; a disk of unknown controller counts for all.
COUNTED = {
    "sd": ("scsi", "sata", "ide", "usb"),
    "hd": ("ide",),
    "vd": ("virtio",),
    "xvd": ("xen",),
    "nvme": ("nvme",),
    "cciss": ("scsi",),
}

_LETTERS = re.compile(r"/dev/(sd|hd|vd|xvd)([a-z]{1,3})([1-9]\d{0,2})?")
_NVME = re.compile(r"/dev/nvme(\d{1,3})n1(?:p([1-9]\d{0,2}))?")
_CCISS = re.compile(r"/dev/cciss/c0d(\d{1,3})(?:p([1-9]\d{0,2}))?")
_BY_PATH = re.compile(r"/dev/disk/by-(path|id)/(\S+?)(?:-part([1-9]\d{0,2}))?")
_ALL = re.compile(r"/dev/(?:sd|hd|xvd)")  # what a pattern for any disk starts with
_TOKEN = re.compile(r"/dev/[A-Za-z0-9_./:@+-]*[A-Za-z0-9_:@+-]")  # not a pattern's last dot


@dataclass(frozen=True, slots=True)
class Place:
    """A disk, or a partition of it. `disk` counts among the disks that `kind` counts."""

    kind: str
    disk: int | None  # None when the name itself does not tell
    partition: int  # 0: the whole disk


def parse(device: str) -> Place | None:
    """What a device name means, or None if it does not depend on the hardware."""
    if match := _LETTERS.fullmatch(device):
        return Place(match[1], letters_to_number(match[2]), int(match[3] or 0))
    if match := _NVME.fullmatch(device):
        return Place("nvme", int(match[1]), int(match[2] or 0))
    if match := _CCISS.fullmatch(device):
        return Place("cciss", int(match[1]), int(match[2] or 0))
    if match := _BY_PATH.fullmatch(device):
        return _by_path(match[1], match[2], int(match[3] or 0))
    return Place("all", None, 0) if _ALL.fullmatch(device) else None


def _by_path(kind: str, name: str, partition: int) -> Place | None:
    if kind == "id" and name.startswith(("dm-", "lvm-", "md-", "raid-")):
        return None  # named by what is on it
    if match := re.search(r"-scsi-\d+:\d+:(\d+):\d+$", name):
        target = int(match[1])
        return Place("sd", target - (target > 7), partition)  # VMware's adapter itself is target 7
    if match := re.search(r"-nvme-(\d+)$", name):
        return Place("nvme", int(match[1]) - 1, partition)
    if match := re.search(r"-ata-(\d+)(?:\.\d+)?$", name):
        return Place("sd", int(match[1]) - 1, partition)
    return Place("any", None, partition)


def letters_to_number(letters: str) -> int:
    """a: 0, z: 25, aa: 26, as Linux counts disks."""
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - ord("a") + 1
    return number - 1


def number_to_letters(number: int) -> str:
    letters = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("a") + rest) + letters
    return letters


@dataclass(frozen=True, slots=True)
class DeviceMap:
    """From the source's names to the target's. Disks are counted in the source's order."""

    controllers: Sequence[str | None]  # of each disk
    prefix: str = "vd"  # of the target's disks
    specs: Mapping[tuple[int, int], str] = field(default_factory=dict)  # (disk, partition): UUID=..

    def find(self, device: str) -> tuple[int, int] | None:
        """The disk's index and the partition's number; None when there is no such disk."""
        place = parse(device)
        if place is None or place.kind == "all":
            return None
        counted = self._counted(place.kind)
        if place.disk is None:
            return (0, place.partition) if len(self.controllers) == 1 else None
        return (counted[place.disk], place.partition) if place.disk < len(counted) else None

    def _counted(self, kind: str) -> list[int]:
        kinds = COUNTED.get(kind, ())
        of_kind = [i for i, c in enumerate(self.controllers) if c is None or c in kinds]
        return of_kind or list(range(len(self.controllers)))

    def plain(self, device: str) -> str | None:
        """The name on the target: /dev/vda1. /dev/sd, the start of a pattern, becomes /dev/vd."""
        if _ALL.fullmatch(device):
            return f"/dev/{self.prefix}"
        found = self.find(device)
        if found is None:
            return None
        disk, partition = found
        return f"/dev/{self.prefix}{number_to_letters(disk)}{partition or ''}"

    def stable(self, device: str) -> str | None:
        """UUID=... or PARTUUID=..., else the name on the target."""
        found = self.find(device)
        if found is None:
            return None
        return self.specs.get(found) or self.plain(device)


@dataclass(frozen=True, slots=True)
class Remapped:
    """A text after remapping, and which names it had."""

    text: str
    moved: Mapping[str, str] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()


def remap(text: str, region: re.Pattern[str], translate: Callable[[str], str | None]) -> Remapped:
    """Translate the device names inside each match of `region` (its first group, if it has one)."""
    moved: dict[str, str] = {}
    unknown: dict[str, None] = {}

    def token(match: re.Match[str]) -> str:
        device = match[0]
        if parse(device) is None:
            return device
        new = translate(device)
        if new is None:
            unknown[device] = None
            return device
        if new != device:
            moved[device] = new
        return new

    def inside(match: re.Match[str]) -> str:
        group = 1 if region.groups else 0
        start, end = match.span(group)
        offset = match.start()
        whole = match[0]
        new = _TOKEN.sub(token, match[group])
        return whole[: start - offset] + new + whole[end - offset :]

    return Remapped(region.sub(inside, text), moved, tuple(unknown))


WHOLE = re.compile(r"(?s).+")
FSTAB = re.compile(r"(?m)^[ \t]*(/dev/\S+)(?=[ \t])")
FSTAB_OPTIONS = re.compile(r"(?m)^[ \t]*[^#\s]\S*[ \t]+\S+[ \t]+\S+[ \t]+(\S+)")
CRYPTTAB = re.compile(r"(?m)^[ \t]*[^#\s]\S*[ \t]+(/dev/\S+)")
ARGUMENTS = re.compile(r"(?:(?<=[\s\"'=])|^)(?:root|resume|swap)=(/dev/[^\s\"']+)", re.MULTILINE)
RESUME = re.compile(r"(?m)^[ \t]*RESUME=[\"']?(/dev/[^\s\"']+)")
DEVICE_MAP = re.compile(r"(?m)^[ \t]*\(hd\d+\)[ \t]+(/dev/\S+)")
MDADM = re.compile(r"(?m)^(?:DEVICE|ARRAY)\b(.*)$")
LVM_FILTER = re.compile(r"(?m)^[ \t]*(?:global_)?filter[ \t]*=(.*)$")
DEBCONF = re.compile(r"(?m)^Name: grub-pc/install_devices\n(?:(?!Name: ).+\n)*?Value: (.*)$")


@dataclass(frozen=True, slots=True)
class Where:
    """A kind of file that names disks."""

    patterns: tuple[str, ...]
    regions: tuple[re.Pattern[str], ...]
    stable: bool = True  # False where only a device's name will do


PLACES = (
    Where(("/etc/fstab",), (FSTAB,)),
    Where(("/etc/fstab",), (FSTAB_OPTIONS,), stable=False),  # the kernel reads them: paths only
    Where(("/etc/crypttab",), (CRYPTTAB,)),
    Where(("/etc/initramfs-tools/conf.d/*",), (RESUME,)),
    Where(("/boot/grub/device.map", "/boot/grub2/device.map"), (DEVICE_MAP,), stable=False),
    Where(("/etc/mdadm/mdadm.conf",), (MDADM,), stable=False),
    Where(("/etc/lvm/lvm.conf",), (LVM_FILTER,), stable=False),
    Where(("/var/cache/debconf/config.dat",), (DEBCONF,), stable=False),
)


def remap_file(text: str, where: Where, names: DeviceMap) -> Remapped:
    translate = names.stable if where.stable else names.plain
    moved: dict[str, str] = {}
    unknown: dict[str, None] = {}
    for region in where.regions:
        result = remap(text, region, translate)
        text = result.text
        moved |= result.moved
        unknown |= dict.fromkeys(result.unknown)
    return Remapped(text, moved, tuple(unknown))


def names_disks(text: str, where: Where) -> bool:
    """Whether there is any name to remap; cheaper than knowing to what."""
    return any(remap(text, region, lambda device: None).unknown for region in where.regions)


def remap_all(text: str, names: DeviceMap) -> Remapped:
    """Every device name of a text, whatever its form."""
    return remap(text, WHOLE, names.stable)


def unique_specs(
    tags: Mapping[tuple[int, int], Mapping[str, str]],
) -> dict[tuple[int, int], str]:
    """UUID= or PARTUUID= for each; a UUID that two have (a cloned disk, an array) names neither."""
    specs: dict[tuple[int, int], str] = {}
    for key, tag in (("UUID", "UUID"), ("PART_ENTRY_UUID", "PARTUUID")):
        values = [found.get(key) for found in tags.values()]
        for place, found in tags.items():
            value = found.get(key)
            if value and values.count(value) == 1 and re.fullmatch(r"[\w-]+", value):
                specs.setdefault(place, f"{tag}={value}")
    return specs
