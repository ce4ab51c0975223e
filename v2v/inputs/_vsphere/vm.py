"""A VM's properties as a Source, but for its disks."""

from __future__ import annotations

import posixpath
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from v2v.errors import SourceError
from v2v.inputs._limits import MAX_MEMORY, MAX_VCPUS, MIN_MEMORY, assumed_memory
from v2v.inputs._vmware import SOUND_CARDS, genid_of
from v2v.inputs._vmx.text import parse_number
from v2v.inputs._vsphere import findings
from v2v.inputs._vsphere.drives import read_removables
from v2v.inputs._vsphere.inventory import IDENTITY, Located
from v2v.inputs._vsphere.names import plain_name, store_path
from v2v.inputs._vsphere.nics import read_nics
from v2v.inputs._vsphere.retrieve import Found
from v2v.inputs._vsphere.summary import firmware_of
from v2v.run import Run
from v2v.texts import clean_description, clean_name
from v2v.types import Cpu, Firmware, MiB, Source

PATHS = (
    *findings.PATHS,
    "config.annotation",
    "config.bootOptions",
    "config.datastoreUrl",
    "config.extraConfig",
    "config.files",
    "config.firmware",
    "config.guestId",
    "config.hardware",
    "recentTask",
    "snapshot",
)

ALL_PATHS = (*IDENTITY, *PATHS)

SOUND_DEVICES = {
    "VirtualEnsoniq1371": "es1371",
    "VirtualHdAudioCard": "hdaudio",
    "VirtualSoundBlaster16": "sb16",
}


def read_vm(vm: Located, networks: Mapping[str, str], run: Run, *, mode: str) -> Source:
    """SourceError `vsphere-value` for what no VM can have. `found` needs what PATHS names."""
    found, name = vm.found, clean_name(vm.name) or vm.id
    devices = found.get("config.hardware.device") or ()
    extra = extra_config(found)
    vcpus = _vcpus(found, name)
    firmware = firmware_of(found)
    efi = firmware is Firmware.UEFI
    boot = found.get("config.bootOptions")
    return Source(
        name=name,
        input=mode,
        disks=(),
        nics=read_nics(devices, networks, name, run),
        memory=_memory(found, name, run),
        vcpus=vcpus,
        cpu=_cpu(found, vcpus),
        firmware=firmware,
        secure_boot=efi and getattr(boot, "efiSecureBootEnabled", None) is True,
        tpm=_has(devices, "VirtualTPM"),
        genid=genid_of(_number(extra, "vm.genid"), _number(extra, "vm.genidX")),
        hypervisor="vmware",
        uuid=_uuid(found),
        description=clean_description(found.get("config.annotation") or ""),
        osinfo=clean_name(found.get("config.guestId") or "") or None,
        rtc_utc=_rtc_utc(extra),
        nvram=_nvram(found, extra),
        video="vmvga" if _has(devices, "VirtualVideoCard") else None,
        sound=_sound(devices),
        removables=read_removables(devices),
    )


def extra_config(vm: Found) -> dict[str, str]:
    """The entries of its .vmx file that the API has no other name for; keys in small letters."""
    options = vm.get("config.extraConfig") or ()
    return {one.key.lower(): str(one.value) for one in options if one.key}


def datastores(vm: Found) -> dict[str, str]:
    """Names of those that the VM has files on, by what stands for them in paths: mostly UUIDs."""
    urls = vm.get("config.datastoreUrl") or ()
    return names_in_paths((one.url or "", plain_name(one.name or "")) for one in urls)


def names_in_paths(datastores: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Of (URL, name): ds:///vmfs/volumes/UUID/, or /vmfs/volumes/UUID."""
    known = ((posixpath.basename(url.rstrip("/")), name) for url, name in datastores)
    # Details of disks have them in lines.
    return {id: name for id, name in known if id and name and f"{id}{name}".isprintable()}


def _has(devices: Sequence[Any], kind: str) -> bool:
    return any(_kind(device) == kind for device in devices)


def _kind(device: Any) -> str:
    return type(device).__name__.rpartition(".")[2]


def _sound(devices: Sequence[Any]) -> str | None:
    cards = [SOUND_DEVICES[_kind(one)] for one in devices if _kind(one) in SOUND_DEVICES]
    return SOUND_CARDS[cards[0]] if cards else None


def _memory(vm: Found, name: str, run: Run) -> int:
    megabytes = getattr(vm.get("config.hardware"), "memoryMB", None)
    if not megabytes:
        return assumed_memory(name, run)
    if not MIN_MEMORY <= megabytes * MiB <= MAX_MEMORY:
        raise _bad_value(name, f"{megabytes} MiB of memory")
    return int(megabytes) * MiB


def _vcpus(vm: Found, name: str) -> int:
    vcpus = getattr(vm.get("config.hardware"), "numCPU", None) or 1
    if not 1 <= vcpus <= MAX_VCPUS:
        raise _bad_value(name, f"{vcpus} processors")
    return int(vcpus)


def _cpu(vm: Found, vcpus: int) -> Cpu:
    """`numCoresPerSocket` is 0 where vSphere is to choose."""
    cores = getattr(vm.get("config.hardware"), "numCoresPerSocket", None) or 0
    if cores < 1 or vcpus % cores:
        return Cpu()
    return Cpu(sockets=vcpus // cores, cores=cores, threads=1)


def _bad_value(name: str, what: str) -> SourceError:
    return SourceError(
        f"{name} has {what}: no VM can have that", id="vsphere-value", hint="is it damaged?"
    )


def _uuid(vm: Found) -> str | None:
    """Of the BIOS: the one that the guest sees."""
    try:
        return str(uuid.UUID(vm.get("config.uuid") or ""))
    except ValueError:
        return None


def _number(extra: Mapping[str, str], key: str) -> int | None:
    return parse_number(extra.get(key.lower(), "").strip())


def _rtc_utc(extra: Mapping[str, str]) -> bool | None:
    """`rtc.diffFromUTC` is in seconds; without it the clock is that of the VMware host's zone."""
    difference = _number(extra, "rtc.diffFromUTC")
    return None if difference is None else difference == 0


def _nvram(vm: Found, extra: Mapping[str, str]) -> str | None:
    """The file with the firmware's variables, which lies beside the .vmx file."""
    name = extra.get("nvram", "").strip()
    vmx = getattr(vm.get("config.files"), "vmPathName", None)
    if not name or "/" in name or not vmx:
        return None
    try:
        folder = store_path(vmx, datastores(vm).values()).rpartition("/")[0]
    except SourceError:
        return None
    return f"{folder}/{clean_name(name)}"
