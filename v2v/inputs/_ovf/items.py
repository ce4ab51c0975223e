"""The items of an OVF descriptor's virtual hardware: processors, memory, controllers, drives."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from v2v.inputs._ovf.xml import attribute, children, descendants, is_true, kind
from v2v.inputs._xml import number

if TYPE_CHECKING:
    from v2v.inputs._xml import Element

# rasd:ResourceType, as CIM numbers them.
OTHER, PROCESSOR, MEMORY, IDE, SCSI = 1, 3, 4, 5, 6
ETHERNET, FLOPPY, CD, DVD, DISK = 10, 14, 15, 16, 17
OTHER_STORAGE, GRAPHICS, SOUND = 20, 24, 35
DISKS = (DISK, 19, 31, 32)  # disk drive, storage extent (XenServer), logical disk, storage volume
CONTROLLERS = (IDE, SCSI, OTHER_STORAGE)
HOST_ADAPTERS = (7, 8, 9)  # Fibre Channel, iSCSI, InfiniBand

ITEMS = ("item", "storageitem", "ethernetportitem")
XEN_DEVICE = re.compile(r"(?:^|,)\s*device=([0-9]{1,4})(?:,|$)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Item:
    """One item; what it does not say is empty. `texts` holds its elements by lower-case name."""

    type: int  # rasd:ResourceType; 0 when it is missing
    id: str
    texts: dict[str, str]
    configs: dict[str, str] = field(default_factory=dict)  # VMware's settings of the device

    def get(self, *names: str) -> str:
        """The first of these that the item tells."""
        return next((self.texts[name] for name in names if self.texts.get(name)), "")

    @property
    def title(self) -> str:
        """What messages call it."""
        return self.get("elementname", "caption", "description") or f"item {self.id}"

    @property
    def device(self) -> str:
        """oVirt's word for what it is: disk, cdrom, interface, video, sound, tpm."""
        return self.get("type").lower()

    @property
    def place(self) -> int | None:
        """Where it is on its controller."""
        connection = XEN_DEVICE.search(self.get("connection"))
        return number(self.get("addressonparent") or (connection[1] if connection else ""))


def read_items(section: Element, configuration: str) -> tuple[Item, ...]:
    """The items that hold for a deployment with this configuration ("": there is none).

    An item may be there several times, for other configurations, or with the least and the most
    that it may be. What is for the configuration replaces what is for all of them.
    """
    plain: list[Item] = []
    special: dict[str, Item] = {}
    for place, element in enumerate(children(section, *ITEMS)):
        wanted = attribute(element, "configuration").split()
        if attribute(element, "bound").lower() in ("min", "max"):
            continue
        item = _item(element)
        if not wanted:
            plain.append(item)
        elif configuration in wanted:
            special[item.id or f"#{place}"] = item
    replaced = [special.pop(item.id, item) for item in plain]
    return (*replaced, *special.values())


def default_configuration(envelope: Element) -> str:
    """The deployment option that holds when nobody chooses: the first, unless one is marked."""
    sections = children(envelope, "deploymentoptionsection")
    found = [option for section in sections for option in children(section, "configuration")]
    marked = [option for option in found if is_true(attribute(option, "default"))]
    return next((attribute(option, "id") for option in [*marked, *found]), "")


def read_configs(element: Element) -> dict[str, str]:
    """VMware's key and value pairs in an element, keys in lower case; the first of a key counts."""
    found: dict[str, str] = {}
    for config in _configs(element):
        found.setdefault(attribute(config, "key").lower(), attribute(config, "value"))
    return found


def _configs(element: Element) -> Iterator[Element]:
    return children(element, "config", "extraconfig")


def _item(element: Element) -> Item:
    texts: dict[str, str] = {}
    for part in element:
        texts.setdefault(kind(part), (part.text or "").strip())
    return Item(
        type=number(texts.get("resourcetype")) or 0,
        id=texts.get("instanceid", ""),
        texts=texts,
        configs=read_configs(element),
    )


def boot_ranks(system: Element, items: tuple[Item, ...]) -> dict[str, int]:
    """From which items the VM boots, by their ids: 1 is tried first."""
    sections = descendants(system, "bootordersection")
    order = [attribute(section, "instanceid") for section in sections]
    ranks = {id: rank for rank, id in enumerate(dict.fromkeys(filter(None, order)), 1)}
    for item in items:  # oVirt's
        if (rank := number(item.get("bootorder"))) and item.id:
            ranks.setdefault(item.id, rank)
    return ranks
