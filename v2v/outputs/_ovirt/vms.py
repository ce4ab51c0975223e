"""The VM at the engine, made from an OVF once its disks are complete."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from v2v.errors import TargetError
from v2v.hardware import Hardware, boot_order
from v2v.outputs._ovirt.chipset import disk_interface
from v2v.outputs._ovirt.engine import Engine
from v2v.outputs._ovirt.networks import Profile
from v2v.outputs._ovirt.ovf import Flavour, ovf_xml
from v2v.outputs._ovirt.places import OvfDisk
from v2v.types import Nic, TargetDisk

log = logging.getLogger(__name__)

CREATE_SECONDS = 600.0
RUNNING = ("up", "wait_for_launch", "powering_up", "reboot_in_progress")


def service(system: Any, uuid: str) -> Any:
    return system.vms_service().vm_service(uuid)


def find(engine: Engine, uuid: str) -> Any | None:
    return engine.find("look for the VM", lambda system: service(system, uuid).get())


def status(vm: Any) -> str:
    return getattr(vm.status, "value", None) or "unknown"


def ovf(hardware: Hardware, disks: Sequence[TargetDisk], there: Sequence[Any], uuid: str) -> bytes:
    """`there`: the disks as the engine knows them."""
    parts = [_ovf_disk(one, disk) for one, disk in zip(there, disks, strict=True)]
    return ovf_xml(hardware, parts, Flavour.OVIRT, vm=uuid)


def _ovf_disk(there: Any, disk: TargetDisk) -> OvfDisk:
    """The engine may have rounded the size up."""
    return OvfDisk(
        image=disk.working,
        volume=there.image_id,
        size=there.provisioned_size or disk.size,
        used=there.actual_size or 0,
        format=disk.format,
        sparse=bool(there.sparse),
        storage=there.storage_domains[0].id,
    )


def add(engine: Engine, cluster: str, ovf: bytes, uuid: str) -> None:
    """The OVF tells the VM's UUID and its disks; `wait_ok` tells when it is there."""
    types = engine.types
    configuration = types.Configuration(type=types.ConfigurationType.OVA, data=ovf.decode())
    vm = types.Vm(
        cluster=types.Cluster(id=cluster),
        initialization=types.Initialization(configuration=configuration),
    )
    engine.make(
        "create the VM",
        lambda system: system.vms_service().add(vm),
        lambda: find(engine, uuid),
    )


def wait_ok(engine: Engine, uuid: str) -> Any:
    """The VM, once nothing is done to its disks any more."""

    def look() -> Any | None:
        vm = find(engine, uuid)
        if vm is None:
            raise TargetError(
                f"{engine.where.host}: the VM {uuid} was not created",
                id="target-create",
                hint="the events in the engine's portal tell why; then `v2v resume`",
            )
        return vm if status(vm) != "image_locked" else None

    return engine.wait(f"the VM {uuid} stays locked", look, CREATE_SECONDS)


def attach(engine: Engine, uuid: str, hardware: Hardware, disks: Sequence[TargetDisk]) -> None:
    """The disks that the VM lacks: the engine attaches them one by one when the VM is made already,
    and where it cannot, only an event tells. Here its words are an error."""
    attached = _attached(engine, uuid)
    for disk, order in zip(disks, boot_order(hardware), strict=True):
        if disk.working not in attached:
            log.info("the engine has not attached the disk %s", disk.working)
            _attach(engine, uuid, hardware, disk.working, first=order == 1)


def _attached(engine: Engine, uuid: str) -> dict[str, Any]:
    listed = engine.call(
        "list the VM's disks", lambda s: service(s, uuid).disk_attachments_service().list()
    )
    return {one.id: one for one in listed}  # by their disks


def _attach(engine: Engine, uuid: str, hardware: Hardware, disk: str, *, first: bool) -> None:
    types = engine.types
    where = disk_interface(hardware.block_bus, hardware.machine, hardware.firmware)
    wanted = types.DiskAttachment(
        disk=types.Disk(id=disk),
        interface=types.DiskInterface(where.lower()),
        bootable=first,
        active=True,
    )
    made = engine.make(
        f"attach the disk {disk} to the VM {uuid}",
        lambda s: service(s, uuid).disk_attachments_service().add(wanted),
        lambda: _attached(engine, uuid).get(disk),
    )
    if made is None:
        raise TargetError(
            f"{engine.where.host}: the disk {disk} is gone, and the VM {uuid} lacks it",
            id="target-lost",
            hint="the events in the engine's portal tell why",
        )


def plug(engine: Engine, uuid: str, nics: Sequence[Nic], profiles: Sequence[Profile]) -> None:
    """Give each network card its vNIC profile: an OVF names the network alone."""
    wanted = {nic.mac: profile.id for nic, profile in zip(nics, profiles, strict=True)}
    cards = engine.call("list the network cards", lambda s: service(s, uuid).nics_service().list())
    for card in cards:
        profile = wanted.get((card.mac.address or "").lower()) if card.mac else None
        if profile and getattr(card.vnic_profile, "id", None) != profile:
            _set_profile(engine, uuid, card.id, profile)


def _set_profile(engine: Engine, uuid: str, card: str, profile: str) -> None:
    types = engine.types
    nic = types.Nic(vnic_profile=types.VnicProfile(id=profile))
    engine.change(
        "set the vNIC profile",
        lambda s: service(s, uuid).nics_service().nic_service(card).update(nic),
    )


def start(engine: Engine, uuid: str) -> None:
    vm = find(engine, uuid)
    if vm is not None and status(vm) not in RUNNING:
        engine.change("start the VM", lambda system: service(system, uuid).start())
