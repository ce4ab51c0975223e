"""A VM's configuration, written from the hardware model: https://pve.proxmox.com/wiki/Manual:_qm.conf

The values are lists of KEY=WORD with commas: nothing that the source or the guest may choose goes
into one, but for what has a form of its own (addresses, UUIDs), or is percent-encoded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from v2v.hardware import (
    Hardware,
    boot_order,
    cdrom_ports,
    disk_serial,
    sound_card,
    valid_mac,
    valid_uuid,
)
from v2v.outputs._proxmox.names import description, vm_name
from v2v.texts import clean
from v2v.types import BlockBus, Firmware, Machine, MiB

Config = dict[str, str | int]

# Bus: its name here, and how many disks it takes.
BUSES = {
    BlockBus.VIRTIO_BLK: ("virtio", 16),
    BlockBus.VIRTIO_SCSI: ("scsi", 31),
    BlockBus.SATA: ("sata", 6),
    BlockBus.IDE: ("ide", 4),
}
MOST_DISKS = max(most for _, most in BUSES.values())
MOST_NICS = 32
SERIAL = 20  # characters of a disk's serial number
SOUND = {"ich9": "ich9-intel-hda", "ich6": "intel-hda", "ac97": "AC97"}
WINDOWS = {  # the end of libosinfo's URI
    **dict.fromkeys(("xp", "winxp"), "wxp"),
    **dict.fromkeys(("2k3", "2k3r2"), "w2k3"),
    "vista": "wvista",
    "2k8": "w2k8",
    **dict.fromkeys(("7", "2k8r2"), "win7"),
    **dict.fromkeys(("8", "8.1", "2k12", "2k12r2"), "win8"),
    **dict.fromkeys(("10", "2k16", "2k19"), "win10"),
    **dict.fromkeys(("11", "2k22", "2k25"), "win11"),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What the hardware model does not tell: where things are at the target."""

    job_id: str
    cpu: str
    storages: tuple[str, ...]  # of each disk
    images: tuple[str, ...]  # what each disk is imported from
    bridges: tuple[tuple[str, int | None], ...]  # and VLAN, of each network card


def vm_config(hardware: Hardware, plan: Plan) -> Config:
    """The parameters of POST /nodes/NODE/qemu, but for the VM's number."""
    config: Config = {
        "name": vm_name(hardware.name),
        "description": description(hardware.description, plan.job_id),
        "ostype": os_type(hardware),
        "machine": "q35" if hardware.machine is Machine.Q35 else "pc",
        "memory": -(-hardware.memory // MiB),
        "cpu": plan.cpu,
        "agent": 1,
        "serial0": "socket",
        "localtime": int(not hardware.rtc_utc),
        **_processors(hardware),
        **_firmware(hardware, plan),
        **_disks(hardware, plan),
        **_cdroms(hardware),
        **_nics(hardware, plan),
    }
    if not hardware.balloon:
        config["balloon"] = 0
    if hardware.rng:
        config["rng0"] = "source=/dev/urandom"
    if card := SOUND.get(sound_card(hardware) or ""):
        config["audio0"] = f"device={card},driver=none"
    if uuid := valid_uuid(hardware.uuid):
        config["smbios1"] = f"uuid={uuid}"
    if genid := valid_uuid(hardware.genid):
        config["vmgenid"] = genid
    return config


def os_type(hardware: Hardware) -> str:
    """Which the server tunes the VM for."""
    match = re.search(r"/win/([^/]+)$", (hardware.osinfo or "").lower())
    if match:
        return WINDOWS.get(match[1], "win11")
    if hardware.windows:
        return "win10"  # of an age that nobody told
    return "l26" if hardware.os is None or hardware.os.type == "linux" else "other"


def disk_bus(bus: BlockBus, machine: Machine) -> BlockBus:
    """Only the old machine has an IDE controller that disks should be on."""
    return BlockBus.SATA if bus is BlockBus.IDE and machine is not Machine.I440FX else bus


def _processors(hardware: Hardware) -> Config:
    """Threads of a core count as cores: the server knows no others."""
    layout = hardware.topology
    if layout is None:
        return {"sockets": 1, "cores": hardware.vcpus}
    return {"sockets": layout.sockets, "cores": layout.cores * layout.threads}


def _firmware(hardware: Hardware, plan: Plan) -> Config:
    """The small disks lie beside the one that boots."""
    storage = plan.storages[hardware.boot_disk]
    config: Config = {"bios": "seabios"}
    if hardware.firmware is Firmware.UEFI:
        keys = int(hardware.secure_boot)
        config["bios"] = "ovmf"
        config["efidisk0"] = f"{storage}:1,efitype=4m,pre-enrolled-keys={keys}"
    if hardware.tpm:
        config["tpmstate0"] = f"{storage}:1,version=v2.0"
    return config


def _disks(hardware: Hardware, plan: Plan) -> Config:
    bus = disk_bus(hardware.block_bus, hardware.machine)
    name = BUSES[bus][0]
    fast = bus in (BlockBus.VIRTIO_BLK, BlockBus.VIRTIO_SCSI)
    config: Config = {"scsihw": "virtio-scsi-single"}
    for index, (storage, image) in enumerate(zip(plan.storages, plan.images, strict=True)):
        words = [f"{storage}:0", f"import-from={image}", "discard=on"]
        if fast:
            words.append("iothread=1")
        serial = disk_serial(hardware, index) or ""
        if 0 < len(serial) <= SERIAL:
            words.append(f"serial={quote(serial, safe='')}")
        config[f"{name}{index}"] = ",".join(words)
    order = sorted(zip(boot_order(hardware), range(len(plan.storages)), strict=True))
    config["boot"] = "order=" + ";".join(f"{name}{index}" for _, index in order)
    return config


def _cdroms(hardware: Hardware) -> Config:
    bus = "ide" if hardware.machine is Machine.I440FX else "sata"
    return {f"{bus}{port}": "none,media=cdrom" for port in cdrom_ports(hardware)}


def _nics(hardware: Hardware, plan: Plan) -> Config:
    config: Config = {}
    for index, (nic, (bridge, tag)) in enumerate(zip(hardware.nics, plan.bridges, strict=True)):
        mac = valid_mac(nic.mac)
        words = [f"{hardware.net_model}={mac.upper()}" if mac else str(hardware.net_model)]
        words.append(f"bridge={bridge}")
        if tag is not None:
            words.append(f"tag={tag}")
        if not nic.connected:
            words.append("link_down=1")
        config[f"net{index}"] = ",".join(words)
    return config


def volumes(config: Mapping[str, object], hardware: Hardware) -> list[str]:
    """Where the disks are, in their order: of a VM's configuration as the server has it."""
    name = BUSES[disk_bus(hardware.block_bus, hardware.machine)][0]
    found = [str(config.get(f"{name}{index}", "")) for index in range(hardware.disk_count)]
    return [clean(words.partition(",")[0]) for words in found]
