"""The devices of an OVF descriptor other than its disks: network cards, drives, sound, graphics."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from v2v.inputs._ovf.items import (
    CD,
    CONTROLLERS,
    DISKS,
    DVD,
    ETHERNET,
    FLOPPY,
    GRAPHICS,
    HOST_ADAPTERS,
    IDE,
    OTHER,
    SCSI,
    SOUND,
    Item,
)
from v2v.inputs._ovf.texts import MAX_DEVICES, listed, too_many
from v2v.inputs._ovf.xml import is_false
from v2v.inputs._vmware import SOUND_CARDS as VMWARE_SOUND_CARDS
from v2v.inputs._xml import number
from v2v.run import Run
from v2v.texts import clean_name
from v2v.types import Nic, Removable

MAC = re.compile(r"[0-9a-f]{12}")
NO_MAC = "000000000000"
WORD = re.compile(r"[a-z0-9][a-z0-9_.-]{0,39}")
XEN_NETWORK = re.compile(r"(?:^|,)\s*(?:xen)?network=([^,]+)", re.IGNORECASE)
MAX_SLOT = 65535

# oVirt numbers its models.
OVIRT_NICS = {"1": "rtl8139", "2": "e1000", "3": "virtio", "5": "pci-passthrough"}

# libvirt's names of sound cards, by what is in the names that others give them.
SOUND_CARDS = {
    **VMWARE_SOUND_CARDS,
    "hda": "ich6",
    "ac97": "ac97",
    "ich6": "ich6",
    "ich9": "ich9",
}
PASSED_THROUGH = re.compile(r"passthrough|nvdimm|sriov|hostdev|host_device")


def controller_bus(item: Item) -> str | None:
    """The bus of a controller; None when the item is no controller of disks."""
    word = item.get("resourcesubtype").lower()
    if item.type not in CONTROLLERS or item.device not in ("", "controller"):
        return None
    if item.type != IDE:
        for bus, part in (("nvme", "nvme"), ("sata", "ahci"), ("sata", "sata"), ("ide", "piix")):
            if part in word:
                return bus
    if item.type == SCSI:
        return "virtio" if word in ("virtio", "virtioblk", "virtio-blk") else "scsi"
    if item.type == IDE:
        return "ide"
    return "scsi" if "scsi" in word or "sas" in word or "usb" in word else _titled_bus(item)


def _titled_bus(item: Item) -> str | None:
    """A controller of another kind without a sub-type: it may tell in words what it is."""
    title = item.title.lower()
    return next((bus for bus in ("nvme", "sata", "scsi", "ide") if bus in title), None)


def is_disk(item: Item) -> bool:
    return item.type in DISKS and item.get("device").lower() in ("", "disk", "lun")


def read_nics(items: Sequence[Item], name: str) -> tuple[Nic, ...]:
    found = [item for item in items if item.type == ETHERNET and item.device in ("", "interface")]
    if len(found) > MAX_DEVICES:
        raise too_many(name, "network cards", len(found))
    return tuple(_nic(item) for item in found)


def _nic(item: Item) -> Nic:
    model = item.get("resourcesubtype").lower().split()
    slot = number(item.configs.get("slotinfo.pcislotnumber"))
    unplugged = [item.get(key) for key in ("automaticallocation", "linked", "isplugged")]
    return Nic(
        mac=mac_address(item.get("macaddress", "address")),
        network=_network(item),
        model=_word(OVIRT_NICS.get(model[0], model[0]) if model else ""),
        slot=slot if slot is not None and slot <= MAX_SLOT else None,
        connected=not any(is_false(word) for word in unplugged),
    )


def _network(item: Item) -> str:
    """The name of the network the card is in; the first, when it is in several."""
    connection = item.get("connection")
    xen = XEN_NETWORK.search(connection)
    return clean_name((xen[1] if xen else connection).strip()) or "default"


def mac_address(text: str) -> str | None:
    """An address of one card in lower case with colons; None for anything else."""
    digits = re.sub(r"[:.-]", "", text.lower())
    if not MAC.fullmatch(digits) or digits == NO_MAC or int(digits[:2], 16) & 1:
        return None
    return ":".join(digits[i : i + 2] for i in range(0, 12, 2))


def read_removables(
    items: Sequence[Item], buses: Mapping[str, str | None], run: Run
) -> tuple[Removable, ...]:
    found = [(item, kind) for item in items if (kind := _removable(item))]
    media = [item.title for item, _ in found if "file/" in item.get("hostresource")]
    if media:
        run.warn(
            f"the media in these drives are left out: {listed(media)}",
            id="ovf-medium-dropped",
            hint="the drives of the target are empty",
        )
    kinds = [Removable(kind, buses.get(item.get("parent"))) for item, kind in found]
    return tuple(kinds[:MAX_DEVICES])


def _removable(item: Item) -> str | None:
    if item.device == "disk" and item.get("device").lower() in ("cdrom", "floppy"):
        return item.get("device").lower()
    if item.type in (CD, DVD):
        return "cdrom"
    return "floppy" if item.type == FLOPPY else None


def warn_dropped(items: Sequence[Item], run: Run) -> None:
    """Tell of devices that the target will not have."""
    dropped = [item.title for item in items if _is_host_device(item)]
    if dropped:
        run.warn(
            f"devices of the source's host are left out: {listed(dropped)}",
            id="ovf-device-dropped",
            hint="give the target one of its own, if the guest needs it",
        )


def _is_host_device(item: Item) -> bool:
    if item.type in HOST_ADAPTERS and not item.device:
        return True
    words = f"{item.get('resourcesubtype')} {item.get('type')}".lower()
    return item.type in (0, OTHER, ETHERNET) and PASSED_THROUGH.search(words) is not None


def sound_card(items: Sequence[Item]) -> str | None:
    for item in items:
        word = item.get("resourcesubtype", "device")
        if item.type == SOUND or item.device == "sound" or ".soundcard." in word.lower():
            return sound_name(word)
    return None


def sound_name(word: str) -> str | None:
    """libvirt's name of a sound card that others call so."""
    return next((name for part, name in SOUND_CARDS.items() if part in word.lower()), None)


def graphics(items: Sequence[Item], hypervisor: str | None) -> tuple[str | None, str | None]:
    """The graphics card and the display, as libvirt names them."""
    video = next((_word(item.get("device")) for item in items if item.device == "video"), None)
    display = next((_word(item.get("device")) for item in items if item.device == "graphics"), None)
    if video is None and hypervisor == "vmware" and any(item.type == GRAPHICS for item in items):
        video = "vmvga"
    return video, display


def has_tpm(items: Sequence[Item]) -> bool:
    return any(
        item.device == "tpm" or "vtpm" in item.get("resourcesubtype").lower() for item in items
    )


def _word(text: str) -> str | None:
    return text.lower() if WORD.fullmatch(text.lower()) else None
