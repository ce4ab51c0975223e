"""What a libvirt domain's other devices are: network cards, drives, and what is left behind."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from v2v.inputs._domain.disks import controller
from v2v.inputs._xml import attribute
from v2v.run import Run
from v2v.types import Nic, Removable

if TYPE_CHECKING:
    from v2v.inputs._xml import Element

MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.ASCII)
FIXED = ("disk", "lun")  # the kinds of <disk> that are disks
DISPLAYS = {"sdl": "window", "desktop": "window"}  # libvirt's name: ours, where they differ
CONNECTED_BY_NAME = ("network", "bridge")
PCI_KEYS = ("domain", "bus", "slot", "function")
PCI_NUMBER = re.compile(r"0x[0-9a-f]{1,4}|[0-9]", re.ASCII)  # others are not what libvirt writes

# <interface> elements that hang on a thing of the source's host: what it is.
OTHER_NICS = {
    "direct": "directly on an interface of its host (macvtap)",
    "hostdev": "that is a device of its host",
    "vdpa": "that is a device of its host (vDPA)",
    "vhostuser": "on a switch of its host (vhost-user)",
    "user": "behind QEMU's own network (user)",
    "ethernet": "on a tap device of its host (ethernet)",
    "internal": "on an internal network",
    "udp": "on a UDP tunnel",
    "mcast": "on a multicast group",
    "server": "on a TCP tunnel",
    "client": "on a TCP tunnel",
    "null": "that is connected to nothing",
    "vds": "on a distributed switch of VMware",
}

# Devices that the target does not get.
DROPPED = {
    "hostdev": "a device of its host (hostdev)",
    "filesystem": "a folder of its host (filesystem)",
    "shmem": "memory shared with other VMs (shmem)",
    "smartcard": "a smart card",
    "crypto": "a crypto device",
}
ONLY_FIRST = {"graphics": "displays", "video": "graphics cards", "sound": "sound cards"}


def read_nics(devices: list[Element], run: Run) -> tuple[Nic, ...]:
    """The <interface>s. Those that are on no network or bridge are put on the network default."""
    for kind in dict.fromkeys(e.get("type") or "?" for e in devices if e.tag == "interface"):
        if kind not in CONNECTED_BY_NAME:
            how = OTHER_NICS.get(kind, f"of the kind {kind!r}")
            run.warn(
                f"the VM has a network card {how}: where the target shall connect it is not known",
                id="nic-connection",
                hint="say it with --mac MAC:network:NAME or --mac MAC:bridge:NAME, "
                "or for all that are not mapped otherwise with -n or -b",
            )
    return tuple(_nic(element, run) for element in devices if element.tag == "interface")


def _nic(element: Element, run: Run) -> Nic:
    kind = element.get("type")
    sources = {"network": "network", "bridge": "bridge", "direct": "dev"}
    network = attribute(element, "source", sources.get(kind or "", "network"))
    return Nic(
        mac=_mac(element, run),
        kind="bridge" if kind == "bridge" else "network",
        network=network or "default",
        model=attribute(element, "model", "type"),
        pci=_pci(element),
        connected=attribute(element, "link", "state") != "down",
    )


def _pci(element: Element) -> str | None:
    """Where the guest found the card. libvirt's own description always says so."""
    numbers = [attribute(element, "address", key) or "0" for key in PCI_KEYS]
    if attribute(element, "address", "type") != "pci":
        return None
    if not all(PCI_NUMBER.fullmatch(number) for number in numbers):
        return None
    domain, bus, slot, function = (int(number, 16) for number in numbers)
    return f"{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"


def _mac(element: Element, run: Run) -> str | None:
    """Lower case. What is no address of one card is left out, so that one is made."""
    text = attribute(element, "mac", "address")
    if text is None:
        return None
    mac = text.lower().replace("-", ":")
    if MAC.fullmatch(mac) and not int(mac[:2], 16) & 1 and mac.strip("0:"):
        return mac
    run.warn(
        f"{text!r} is not the MAC address of a network card: the target gets another one",
        id="nic-mac-invalid",
        hint="correct it in the source if the guest depends on it",
    )
    return None


def read_removables(devices: list[Element]) -> tuple[Removable, ...]:
    drives = [e for e in devices if e.tag == "disk" and e.get("device") in ("cdrom", "floppy")]
    return tuple(Removable(str(drive.get("device")), controller(drive)) for drive in drives)


def is_fixed(element: Element) -> bool:
    """A <disk> whose content is the VM's, rather than a medium in a drive."""
    return element.tag == "disk" and (element.get("device") or "disk") in FIXED


def display(devices: list[Element]) -> str | None:
    kind = _first(devices, "graphics", ".", "type")
    return DISPLAYS.get(kind, kind) if kind else None


def video(devices: list[Element]) -> str | None:
    return _first(devices, "video", "model", "type")


def sound(devices: list[Element]) -> str | None:
    return _first(devices, "sound", ".", "model")


def has(devices: list[Element], tag: str) -> bool:
    return any(element.tag == tag for element in devices)


def warn_of_dropped(devices: list[Element], run: Run) -> None:
    """Tell what the target will not have, once for each kind."""
    tags = [str(element.tag) for element in devices]
    lost = [what for tag, what in DROPPED.items() if tag in tags]
    lost += [f"several {what}" for tag, what in ONLY_FIRST.items() if tags.count(tag) > 1]
    for what in lost:
        kept = "only the first is kept" if "several" in what else "the target does not get it"
        run.warn(
            f"the VM has {what}: {kept}",
            id="device-dropped",
            hint="add to the target what the guest cannot do without",
        )


def _first(devices: list[Element], tag: str, path: str, key: str) -> str | None:
    return next((attribute(e, path, key) for e in devices if e.tag == tag), None)
