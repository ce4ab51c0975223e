"""Reading a VM through the API: which one, whether it stands still, and what its disks are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from v2v.errors import SourceError
from v2v.inputs._vsphere import findings
from v2v.inputs._vsphere import vm as vms
from v2v.inputs._vsphere.connect import Session
from v2v.inputs._vsphere.described import DescribedVm, VmDisk
from v2v.inputs._vsphere.drives import Drive, boot_orders, read_drives
from v2v.inputs._vsphere.inventory import VM, Inventory, Located, find_vm, read_inventory
from v2v.inputs._vsphere.names import folder_of, store_path
from v2v.inputs._vsphere.retrieve import Found, reference, retrieve_these
from v2v.inputs._vsphere.snapshots import Snapshot, find_snapshot, read_snapshots
from v2v.run import Run
from v2v.texts import clean, clean_name
from v2v.types import Finding

SNAPSHOT = "vm.Snapshot"
TASK = ("info.state", "info.descriptionId", "info.progress")
UNDER_WAY = ("queued", "running")  # of TaskInfo.state
# Parts of the names of tasks that move or merge a VM's disks, whatever the release calls them.
DISK_TASKS = ("snapshot", "consolidate", "relocate", "migrate", "revert")


@dataclass(frozen=True, slots=True)
class Looked:
    """All that is asked for at once."""

    vm: Located  # with its properties
    tasks: tuple[Found, ...]
    inventory: Inventory


def locate(session: Session, word: str) -> tuple[Located, Inventory]:
    """The VM that the user means."""
    inventory = session.call(lambda: read_inventory(session.content))
    return find_vm(inventory, word, session.place), inventory


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How the VM is to be read."""

    word: str  # see `find_vm`
    mode: str  # of the input
    snapshot: str | None = None  # see `find_snapshot`; without it the VM must be shut down
    may_run: bool = False  # it is only looked at
    vddk: bool = False  # its disks are not for our own reader


def read_vm(session: Session, wish: Wish, run: Run) -> DescribedVm:
    """SourceError or UsageError where the VM, the snapshot, or a disk cannot be read."""
    looked = _look(session, wish.word)
    vm, found, snapshot = looked.vm, looked.vm.found, wish.snapshot
    check_still(looked, snapshot, may_run=wish.may_run)
    known = read_snapshots(found.get("snapshot"))
    chosen = find_snapshot(known, snapshot, clean_name(vm.name)) if snapshot is not None else None
    drives = read_drives(found.get("config.hardware.device") or ())
    if chosen:
        drives = _drives_then(session, chosen, drives, found, run)
    _judge(vm, findings.blockers(found, drives, vddk=wish.vddk))
    for finding in findings.warnings(found, drives, looked.inventory.datastores):
        run.warn(f"{clean_name(vm.name)}: {finding.text}", id=finding.id, hint=finding.hint)
    source = vms.read_vm(vm, looked.inventory.networks, run, mode=wish.mode)
    return DescribedVm(
        source=replace(source, snapshots=tuple(one.name for one in known)),
        disks=_disks(found, drives, looked.inventory),
        id=vm.id,
        datacenter=vm.datacenter,
        host=vm.host,
        snapshot=chosen.id if chosen else "",
        vcenter=session.content.about.apiType == "VirtualCenter",
        running=not snapshot and findings.power_of(found) in ("on", "suspended"),
        datastores=vms.datastores(found) | _of_parents(drives, looked.inventory),
    )


def _look(session: Session, word: str) -> Looked:
    located, inventory = locate(session, word)
    content = session.content

    def ask() -> tuple[Found, tuple[Found, ...]]:
        (found,) = retrieve_these(content, [reference(content, VM, located.id)], vms.ALL_PATHS)
        return found, tuple(_told(content, found.get("recentTask") or ()))

    found, tasks = session.call(ask)
    return Looked(replace(located, found=found), tasks, inventory)


def _told(content: Any, tasks: Iterable[Any]) -> Iterator[Found]:
    """Of tasks only what is needed: other parts name objects that pyVmomi may not know."""
    from pyVmomi import vmodl

    for task in tasks:
        with suppress(vmodl.fault.ManagedObjectNotFound):  # forgotten, some time after it ended
            yield from retrieve_these(content, [task], TASK)


def check_still(looked: Looked, snapshot: str | None, *, may_run: bool = False) -> None:
    """Refuse a VM whose disks change while they are read."""
    name, power = clean_name(looked.vm.name), findings.power_of(looked.vm.found)
    for task in looked.tasks:
        _check_task(task, name)
    if snapshot is not None or power in ("off", "unknown"):
        return
    if power == "suspended":
        raise SourceError(
            f"{name} is suspended: part of its state is in its memory",
            id="source-suspended",
            hint="resume it and shut it down; what is in its memory is not on the disks",
        )
    if may_run:
        return
    raise SourceError(
        f"{name} is running: its disks change while they are read",
        id="source-running",
        hint="shut it down; or read one of its snapshots with -io snapshot=NAME; or have v2v do "
        "either: -io running=shutdown, -io running=snapshot",
    )


def _check_task(task: Found, name: str) -> None:
    kind = str(task.get("info.descriptionId") or "")
    moves_disks = any(part in kind.lower() for part in DISK_TASKS)
    if not moves_disks or str(task.get("info.state")) not in UNDER_WAY:
        return
    progress = task.get("info.progress")
    percent = f", {progress} % done" if progress is not None else ""
    raise SourceError(
        f"{name}: vSphere is changing its disks ({clean(kind)}{percent})",
        id="source-consolidating",
        hint="wait until the task is done; the vSphere Client shows it under Recent Tasks",
    )


def _drives_then(
    session: Session, chosen: Snapshot, now: Sequence[Drive], vm: Found, run: Run
) -> tuple[Drive, ...]:
    """The disks as of the snapshot. Those that are in no snapshot stay as they are."""
    content = session.content
    object = reference(content, SNAPSHOT, chosen.id)
    path = "config.hardware.device"
    (found,) = session.call(lambda: retrieve_these(content, [object], [path]))
    then = read_drives(found.get(path) or ())
    if findings.power_of(vm) != "off":
        for finding in findings.independent(then):
            raise SourceError(f"the VM runs, and {finding.text}", id=finding.id, hint=finding.hint)
    keys = {drive.key for drive in then}
    if later := [drive.label for drive in now if drive.key not in keys]:
        run.warn(
            f"the disks at {', '.join(later)} were not there when the snapshot {chosen.name!r} "
            "was made: left out",
            id="snapshot-without-disk",
            hint="without -io snapshot the VM is read with all its disks, as it is now",
        )
    return then


def _judge(vm: Located, blockers: Iterable[Finding]) -> None:
    for one in blockers:
        raise SourceError(f"{clean_name(vm.name)}: {one.text}", id=one.id, hint=one.hint)


def _disks(vm: Found, drives: Sequence[Drive], inventory: Inventory) -> tuple[VmDisk, ...]:
    names = {*vms.datastores(vm).values(), *(one.name for one in inventory.datastores.values())}
    hdd_order = vms.extra_config(vm).get("bios.hddorder", "")
    orders = boot_orders(drives, vm.get("config.bootOptions"), hdd_order)
    return tuple(
        _disk(drive, order, sorted(names)) for drive, order in zip(drives, orders, strict=True)
    )


def _of_parents(drives: Sequence[Drive], inventory: Inventory) -> dict[str, str]:
    """Names of datastores by UUIDs: a linked clone's disks name their parents by these."""
    ids = {id for drive in drives for id in drive.datastores}
    known = [one for id, one in inventory.datastores.items() if id in ids]
    return vms.names_in_paths((one.url, one.name) for one in known)


def _disk(drive: Drive, order: int | None, datastores: Sequence[str]) -> VmDisk:
    paths = [store_path(file, datastores) for file in drive.files]
    return VmDisk(
        label=drive.label,
        path=paths[0],
        roots=tuple(dict.fromkeys(map(folder_of, paths))),
        size=drive.size,
        controller=drive.controller,
        boot_order=order,
    )
