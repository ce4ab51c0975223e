"""How the guest boots: its firmware, and the disk it boots from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from conversion.disk_head import HEAD_BYTES, DiskHead, read_head
from conversion.linux.device_names import letters_to_number
from v2v import nbd_client
from v2v.endpoint import Endpoint
from v2v.types import Finding, Firmware, Source

_PARTITION = re.compile(r"(?:btrfsvol:)?/dev/sd([a-z]{1,3})\d*(?:/.*)?")


def read_heads(endpoints: Sequence[Endpoint]) -> tuple[DiskHead, ...]:
    """Read the first sectors of each disk over NBD, without an appliance."""
    return tuple(_read_head(endpoint) for endpoint in endpoints)


def _read_head(endpoint: Endpoint) -> DiskHead:
    handle = nbd_client.connect(endpoint)
    try:
        return read_head(bytes(handle.pread(min(HEAD_BYTES, endpoint.size), 0)))
    finally:
        handle.shutdown()


def firmware(source: Source, heads: Sequence[DiskHead]) -> Firmware:
    """What the source says; else UEFI if there is an EFI system partition and none for GRUB's BIOS
    part. A disk with both was made to boot either way, and BIOS asks less of the target."""
    if source.firmware is not None:
        return source.firmware
    esp = any(head.esp for head in heads)
    bios_boot = any(head.bios_boot for head in heads)
    return Firmware.UEFI if esp and not bios_boot else Firmware.BIOS


def firmware_doubt(source: Source, heads: Sequence[DiskHead]) -> Finding | None:
    """A warning, if the source says one firmware and all that is on the disks speaks for the other.

    What has no boot code at all says nothing, and neither does an MBR's EFI system partition.
    """
    esp = any(head.esp for head in heads)
    bios = any(head.bios_boot or head.grub for head in heads)
    code = bios or any(head.boot_code for head in heads)
    if source.firmware is Firmware.BIOS and esp and not code:
        found = "an EFI system partition and no boot code for a BIOS"
    elif source.firmware is Firmware.UEFI and bios and not esp:
        found = "boot code for a BIOS and no EFI system partition"
    else:
        return None
    said = source.firmware.upper()
    return Finding(
        "warning",
        "firmware-doubtful",
        f"the source says that it boots by {said}, but its disks have {found}",
        f"the target gets {said}; --boot-check shows whether the guest boots so",
    )


def boot_disk(firmware: Firmware, heads: Sequence[DiskHead], mounts: Mapping[str, str]) -> int:
    """The index of the disk to boot from.

    mounts: mountpoint: device. UEFI boots from the EFI system partition, a BIOS from a boot sector:
    GRUB's if there is one, else one with code in it, on the disk that holds /boot if that is so.
    """
    home = disk_of(mounts.get("/boot") or mounts.get("/") or "")
    if firmware is Firmware.UEFI:
        wanted = [i for i, head in enumerate(heads) if head.esp]
    else:
        wanted = [i for i, head in enumerate(heads) if head.grub]
        wanted = wanted or [i for i, head in enumerate(heads) if head.boot_code]
    if home is not None and (home in wanted or not wanted):
        return home
    return wanted[0] if wanted else 0


def disk_of(device: str) -> int | None:
    """The disk that an appliance device is on; None for volumes that may span several."""
    match = _PARTITION.fullmatch(device)
    return letters_to_number(match[1]) if match else None
