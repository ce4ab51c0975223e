"""What vendors tell in OVF descriptors in ways of their own: firmware, TPM, MACs, snapshots."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from v2v.inputs._ovf.devices import mac_address, sound_name
from v2v.inputs._ovf.items import read_configs
from v2v.inputs._ovf.xml import attribute, child, children, descendants, is_false, is_true, text
from v2v.inputs._vmware import genid_of
from v2v.inputs._xml import number
from v2v.texts import clean_name
from v2v.types import Firmware, Nic

if TYPE_CHECKING:
    from v2v.inputs._xml import Element

# oVirt's BiosType: i440fx and SeaBIOS, q35 and SeaBIOS, q35 and OVMF, the same with Secure Boot.
OVIRT_MACHINES = {"0": "pc", "1": "q35", "2": "q35", "3": "q35"}
OVIRT_UEFI = ("2", "3")
OVIRT_SECURE = "3"

CHIPSETS = {"ich9": "q35", "piix3": "pc"}  # VirtualBox's
SIGNED = re.compile(r"-?[0-9]{1,20}", re.ASCII)
MAX_SNAPSHOTS = 1000


@dataclass(frozen=True, slots=True)
class Extras:
    """None where the descriptor does not say."""

    firmware: Firmware | None = None
    secure_boot: bool = False
    tpm: bool = False
    genid: str | None = None
    machine: str | None = None
    rtc_utc: bool | None = None
    video: str | None = None
    cores_per_socket: int | None = None


def read_extras(system: Element, hardware: Element | None, machine: Element | None) -> Extras:
    """`machine` is VirtualBox's own description of the VM, which may be in the system."""
    if machine is not None:
        return _virtualbox(machine)
    if bios_type := text(system, "biostype"):
        return _ovirt(bios_type)
    if hardware is None:
        return Extras()
    if child(hardware, "virtualsystemotherconfigurationdata") is not None:
        return _xen(hardware)
    return _vmware(hardware)


def _vmware(hardware: Element) -> Extras:
    configs = read_configs(hardware)
    secure = "bootoptions.efisecurebootenabled", "uefi.secureboot.enabled"
    return Extras(
        firmware=_firmware(configs.get("firmware", "")),
        secure_boot=any(is_true(configs.get(key, "")) for key in secure),
        tpm=any(is_true(configs.get(key, "")) for key in ("tpm.present", "vtpm.present")),
        genid=genid_of(_signed(configs.get("vm.genid", "")), _signed(configs.get("vm.genidx", ""))),
    )


def _signed(text: str) -> int | None:
    return int(text) if SIGNED.fullmatch(text) else None


def _ovirt(bios_type: str) -> Extras:
    uefi = bios_type in OVIRT_UEFI
    known = bios_type in OVIRT_MACHINES
    return Extras(
        firmware=(Firmware.UEFI if uefi else Firmware.BIOS) if known else None,
        secure_boot=bios_type == OVIRT_SECURE,
        machine=OVIRT_MACHINES.get(bios_type),
    )


def _xen(hardware: Element) -> Extras:
    """Named values, which are lists: "platform" is "nx=true;secureboot=true;vtpm=true"."""
    found = {
        attribute(data, "name").lower(): _pairs(text(data, "value"))
        for data in children(hardware, "virtualsystemotherconfigurationdata")
    }
    platform, boot = found.get("platform", {}), found.get("hvm_boot_params", {})
    return Extras(
        firmware=_firmware(boot.get("firmware", "")),
        secure_boot=is_true(platform.get("secureboot", "")),
        tpm=is_true(platform.get("vtpm", "")),
        cores_per_socket=number(platform.get("cores-per-socket")),
    )


def _pairs(value: str) -> dict[str, str]:
    parts = (part.partition("=") for part in value.lower().split(";"))
    return {key.strip(): word.strip() for key, _, word in parts}


def _virtualbox(machine: Element) -> Extras:
    hardware = child(machine, "hardware")
    if hardware is None:
        return Extras()
    found = {name: next(descendants(hardware, name), None) for name in VIRTUALBOX}
    tpm = attribute(found["trustedplatformmodule"], "type").lower()
    clock = attribute(found["rtc"], "localorutc").upper()
    video = attribute(found["display"], "controller").lower()
    return Extras(
        firmware=_firmware(attribute(found["firmware"], "type")),
        secure_boot=is_true(attribute(found["secureboot"], "enabled")),
        tpm=tpm not in ("", "none"),
        machine=CHIPSETS.get(attribute(found["chipset"], "type").lower()),
        rtc_utc=clock == "UTC" if clock else None,
        video="vmvga" if video == "vmsvga" else "vbox" if video.startswith("vbox") else None,
    )


VIRTUALBOX = ("firmware", "trustedplatformmodule", "secureboot", "rtc", "display", "chipset")


def _firmware(word: str) -> Firmware | None:
    """VMware's efi, Xen's uefi, VirtualBox's EFI32; their bios."""
    word = word.lower()
    if word.startswith(("efi", "uefi")):
        return Firmware.UEFI
    return Firmware.BIOS if word == "bios" else None


def with_adapters(nics: Sequence[Nic], machine: Element | None) -> tuple[Nic, ...]:
    """VirtualBox's cards with their addresses, which only its own description tells.

    The items of an exported VM are its enabled adapters, in their order.
    """
    adapters = _adapters(machine)
    if len(adapters) != len(nics):
        return tuple(nics)
    return tuple(
        replace(
            nic,
            mac=nic.mac or mac_address(attribute(adapter, "macaddress")),
            connected=nic.connected and not is_false(attribute(adapter, "cable")),
        )
        for nic, adapter in zip(nics, adapters, strict=True)
    )


def _adapters(machine: Element | None) -> list[Element]:
    network = child(child(machine, "hardware"), "network")
    if network is None:
        return []
    found = [a for a in children(network, "adapter") if is_true(attribute(a, "enabled"))]
    return sorted(found, key=lambda adapter: number(attribute(adapter, "slot")) or 0)


def adapter_sound(machine: Element | None, sound: str | None) -> str | None:
    """VirtualBox writes one and the same card into the items, whatever the VM has."""
    adapter = child(child(machine, "hardware"), "audioadapter")
    if adapter is None or not attribute(adapter, "enabled"):
        return sound
    if not is_true(attribute(adapter, "enabled")):
        return None
    return sound_name(attribute(adapter, "controller") or "ac97")


def snapshots(envelope: Element, system: Element) -> tuple[str, ...]:
    """Those of oVirt, by age; the active one is the VM itself."""
    found: list[tuple[str, str]] = []
    for parent in (envelope, system):
        for section in children(parent, "snapshotssection"):
            found += [_snapshot(snapshot) for snapshot in children(section, "snapshot")]
    names = [name for _, name in sorted(found, key=lambda pair: pair[0]) if name]
    return tuple(names[:MAX_SNAPSHOTS])


def _snapshot(element: Element) -> tuple[str, str]:
    """When it was made, and its name; no name for what is no snapshot of the user's."""
    name = text(element, "description") or attribute(element, "id")
    own = text(element, "type").upper() in ("", "REGULAR")
    return _date(text(element, "creationdate")), clean_name(name) if own else ""


def _date(text: str) -> str:
    """oVirt's "2024/03/01 10:00:00" sorts as it is."""
    return text if re.fullmatch(r"[0-9]{4}/[0-9]{2}/[0-9]{2} [0-9:]{8}", text) else ""
