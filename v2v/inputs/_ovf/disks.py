"""Which disks of an OVF descriptor the VM has, and in which order the guest sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from v2v.errors import SourceError
from v2v.inputs._ovf.devices import controller_bus, is_disk
from v2v.inputs._ovf.files import Listed, OvfDisk, OvfFile, read_disks, read_files
from v2v.inputs._ovf.items import OTHER_STORAGE, Item
from v2v.inputs._ovf.texts import MAX_DEVICES, invalid, listed, shown, too_many
from v2v.inputs._xml import number
from v2v.run import Run

if TYPE_CHECKING:
    from v2v.inputs._xml import Element

Attached: TypeAlias = tuple[Item, Listed | None]
NO_ITEM = Item(0, "", {})

# How the firmware of each hypervisor counts disks, as far as nobody changed it.
BUSES = ("scsi", "nvme", "sata", "ide", "virtio")
VIRTUALBOX_BUSES = ("ide", "sata", "scsi", "nvme", "virtio")
LAST = 1 << 40  # a place after every other


@dataclass(frozen=True, slots=True)
class Package:
    """What a descriptor lists, and how messages call it."""

    name: str
    files: Mapping[str, OvfFile]
    disks: Mapping[str, Listed]
    refs: Mapping[str, Listed]  # disks by the files' ids or names that they refer to


def read_package(envelope: Element, name: str, run: Run) -> Package:
    files = read_files(envelope, name)
    disks = read_disks(envelope, files, name, run)
    refs = {ref: disk for disk in disks.values() if disk.file for ref in _refs(disk, disk.file)}
    return Package(name, files, disks, refs)


def _refs(disk: Listed, file: OvfFile) -> tuple[str, ...]:
    return disk.file_ref, file.id, file.href


@dataclass(frozen=True, slots=True)
class Controller:
    bus: str | None
    address: int
    index: int  # among the items


def read_controllers(items: Sequence[Item]) -> dict[str, Controller]:
    """By the ids of their items."""
    found: dict[str, Controller] = {}
    for index, item in enumerate(items):
        bus = controller_bus(item)
        if item.id and bus:
            address = number(item.get("address"))
            found.setdefault(item.id, Controller(bus, LAST if address is None else address, index))
    return found


def attached_disks(
    package: Package,
    items: Sequence[Item],
    boot: Mapping[str, int],
    run: Run,
    *,
    virtualbox: bool = False,
) -> tuple[OvfDisk, ...]:
    """The disks that items attach; all that are listed, when there is no such item.

    They are in the order of their controllers and of their places there; what has no controller
    comes last, as it is written.
    """
    buses = VIRTUALBOX_BUSES if virtualbox else BUSES
    attached = [item for item in items if is_disk(item) or _is_other_disk(item)]
    if len(attached) > MAX_DEVICES:
        raise too_many(package.name, "disks", len(attached))
    controllers = read_controllers(items)
    attached.sort(key=lambda item: _place(item, controllers, buses))
    pairs = [(item, _resolve(item, package)) for item in attached]
    _warn_unattached(package, pairs, run)
    pairs = pairs or [(NO_ITEM, disk) for disk in package.disks.values()]
    _warn_empty(package, pairs, run)
    found = [
        _ovf_disk(disk, disk.file, package, controllers.get(item.get("parent")), boot.get(item.id))
        for item, disk in pairs
        if disk and disk.file
    ]
    if not found:
        raise _no_disks(package)
    return _with_boot_disk(found, [disk for _, disk in pairs if disk and disk.file])


def _with_boot_disk(found: Sequence[OvfDisk], listed: Sequence[Listed]) -> tuple[OvfDisk, ...]:
    """Where the items tell of no order, the first disk that is marked as bootable is the first."""
    marked = next((index for index, disk in enumerate(listed) if disk.boot), None)
    if marked is None or any(disk.boot_order for disk in found):
        return tuple(found)
    return tuple(
        replace(disk, boot_order=1) if index == marked else disk for index, disk in enumerate(found)
    )


def _place(
    item: Item, controllers: Mapping[str, Controller], buses: Sequence[str]
) -> tuple[int, int, int, int]:
    parent = controllers.get(item.get("parent"))
    place = LAST if item.place is None else item.place
    if parent is None:
        return len(buses), 0, 0, place
    rank = buses.index(parent.bus) if parent.bus in buses else len(buses)
    return rank, parent.address, parent.index, place


def _resolve(item: Item, package: Package) -> Listed | None:
    """The disk that the item attaches; None when it is a new and empty one."""
    resource = item.get("hostresource")
    path = resource.removeprefix("ovf:").lstrip("/")
    if path.startswith("disk/"):
        found = package.disks.get(path.removeprefix("disk/"))
    elif path.startswith("file/"):
        found = _of_file(path.removeprefix("file/"), package)
    else:  # oVirt's are names of files; XenServer's items have the ids of the disks
        found = package.disks.get(path) or package.refs.get(path) or package.disks.get(item.id)
    if found is None and resource:
        raise invalid(
            package.name, f"{shown(item.title)} is a disk that is not listed: {shown(resource)}"
        )
    return found


def _of_file(id: str, package: Package) -> Listed | None:
    """The disk in a file, where an item refers to the file rather than to the disk."""
    file = package.files.get(id)
    if file is None:
        return None
    bare = Listed(id, file, id, parent="", format=None, capacity=None, bus=None, boot=False)
    return package.refs.get(id, bare)


def _is_other_disk(item: Item) -> bool:
    """A disk as "other storage", which is the type of controllers too."""
    path = item.get("hostresource").removeprefix("ovf:").lstrip("/")
    return item.type == OTHER_STORAGE and path.startswith("disk/") and not item.device


def _ovf_disk(
    disk: Listed, file: OvfFile, package: Package, controller: Controller | None, boot: int | None
) -> OvfDisk:
    if disk.parent:
        raise SourceError(
            f"{package.name}: disk {shown(disk.id)} holds only what differs from "
            f"{shown(disk.parent)}",
            id="ovf-delta-disk",
            hint="delete the VM's snapshots, or clone it, and export it again",
        )
    return OvfDisk(
        href=file.href,
        format=disk.format,
        capacity=disk.capacity,
        compression=file.compression,
        chunk_size=file.chunk_size,
        controller=(controller.bus if controller else None) or disk.bus,
        boot_order=boot,
        file_size=file.size,
        id=disk.id,
    )


def _warn_empty(package: Package, pairs: Sequence[Attached], run: Run) -> None:
    titles = [disk.id if disk else item.title for item, disk in pairs if not (disk and disk.file)]
    if titles:
        run.warn(
            f"{package.name}: disks without an image are left out: {listed(titles)}",
            id="ovf-disk-empty",
            hint="add empty disks to the target, if the guest needs them",
        )


def _warn_unattached(package: Package, pairs: Sequence[Attached], run: Run) -> None:
    known = {disk.id for _, disk in pairs if disk}
    left = [id for id in package.disks if id not in known]
    if pairs and left:
        run.warn(
            f"{package.name}: disks that the VM does not have are left out: {listed(left)}",
            id="ovf-disk-unattached",
            hint="convert them separately, if you need them",
        )


def _no_disks(package: Package) -> SourceError:
    return SourceError(
        f"{package.name} tells of no disk with an image",
        id="ovf-no-disks",
        hint="was the VM exported with its disks?",
    )
