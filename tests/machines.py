"""Hardware to describe."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from v2v.hardware import Hardware
from v2v.types import BlockBus, DiskFormat, Firmware, GiB, Machine, NetModel, Nic, TargetDisk

PLAIN = Hardware(
    name="demo",
    memory=2 * GiB,
    vcpus=2,
    arch="x86_64",
    machine=Machine.Q35,
    firmware=Firmware.BIOS,
    secure_boot=False,
    tpm=False,
    block_bus=BlockBus.VIRTIO_BLK,
    disk_count=1,
    boot_disk=0,
    net_model=NetModel.VIRTIO,
    nics=(Nic(mac="52:54:00:11:22:33"),),
    rng=True,
    balloon=True,
    pvpanic=True,
    vsock=True,
    virtio_1_0=True,
    rtc_utc=True,
    genid=None,
    osinfo="http://debian.org/debian/12",
)


def machine(**changes: Any) -> Hardware:
    return replace(PLAIN, **changes)


def disks(count: int, format: DiskFormat = DiskFormat.RAW) -> list[TargetDisk]:
    names = [f"/srv/vm/demo-sd{chr(97 + index)}" for index in range(count)]
    return [TargetDisk(name, name, format, GiB) for name in names]
