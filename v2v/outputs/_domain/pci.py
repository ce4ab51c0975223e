"""Where a domain's devices are on PCI: chosen here, so that the guest finds them in one order.

Linux names network cards, and Windows knows them again, by their place. libvirt would choose places
by rules that it does not promise, and for all devices anew if one is added before it is defined.
What the machine itself brings along (SATA, USB, graphics) is left to libvirt, and so is sound.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import zip_longest

from v2v.hardware import Hardware
from v2v.outputs._domain.devices import TRANSITIONAL
from v2v.outputs._xml import Element, add
from v2v.types import Machine

Place = tuple[int, int]  # bus, slot
Waiting = tuple[Element, Place | None]  # a device, and where the source had it

# All that conversion puts on PCI: network cards come first, whatever else there is.
ORDER = (
    "interface",
    "disk/target[@bus='virtio']/..",
    "controller[@type='scsi']",
    "controller[@type='virtio-serial']",
    "memballoon[@model!='none']",
    "rng",
    "vsock",
)
OLD_SLOTS = range(3, 27)  # chipset and graphics are below; the last are for what libvirt adds
PORTS = 14  # of PCI Express, as virt-install gives: those that are free take devices while it runs
FREE_PORTS = 4  # at least: libvirt puts USB and, of ARM, graphics there
BRIDGE = "pcie-to-pci-bridge"
BRIDGE_SLOTS = range(1, 32)
CONVENTIONAL = (TRANSITIONAL, "e1000", "rtl8139")  # models that are no devices of PCI Express
ADDRESS = re.compile(r"0000:([0-9a-f]{2}):([0-9a-f]{2})\.0")


def place_devices(devices: Element, hardware: Hardware) -> None:
    """Network cards keep the places that they had at the source, where the target has these.

    Devices for which no place is left are libvirt's to place, which makes more bridges.
    """
    nics = [_place(nic.pci) for nic in hardware.nics]
    found = [one for path in ORDER for one in devices.iterfind(path)]
    waiting = list(zip_longest(found, nics))
    if hardware.machine is Machine.I440FX:
        _assign(waiting, [(0, slot) for slot in OLD_SLOTS])
    else:
        _assign_express(devices, waiting)


def _assign_express(devices: Element, waiting: Sequence[Waiting]) -> None:
    """Each device behind a port of its own, where it can be taken out while the guest runs.

    Devices of conventional PCI share bridges, which come first: the firmware numbers all buses in
    this order, and the guest goes by its numbers.
    """
    old = [one for one in waiting if _is_conventional(one[0])]
    new = [one for one in waiting if not _is_conventional(one[0])]
    bridges = range(1, 1 + 2 * -(-len(old) // len(BRIDGE_SLOTS)), 2)
    for port in bridges:
        _add_port(devices, port)
        bridge = add(devices, "controller", type="pci", index=str(port + 1), model=BRIDGE)
        _put(bridge, (port, 0))
    _assign(old, [(port + 1, slot) for port in bridges for slot in BRIDGE_SLOTS])
    first = 1 + 2 * len(bridges)
    ports = range(first, max(PORTS, first + len(new) + FREE_PORTS) + 1)
    for port in ports:
        _add_port(devices, port)
    _assign(new, [(port, 0) for port in ports])


def _assign(waiting: Sequence[Waiting], places: Iterable[Place]) -> None:
    free = list(places)
    others = []
    for element, wanted in waiting:
        if wanted in free:
            free.remove(wanted)
            _put(element, wanted)
        else:
            others.append(element)
    for element, place in zip(others, free, strict=False):
        _put(element, place)


def _put(element: Element, place: Place) -> None:
    bus, slot = (f"0x{number:02x}" for number in place)
    add(element, "address", type="pci", domain="0x0000", bus=bus, slot=slot, function="0x0")


def _add_port(devices: Element, index: int) -> None:
    add(devices, "controller", type="pci", index=str(index), model="pcie-root-port")


def _is_conventional(element: Element) -> bool:
    model = element.find("model")
    return (element.get("model") or (model is not None and model.get("type"))) in CONVENTIONAL


def _place(address: str | None) -> Place | None:
    """One that has the slot alone."""
    found = ADDRESS.fullmatch(address or "")
    return (int(found[1], 16), int(found[2], 16)) if found else None
