"""The VM at the engine, made from an OVF once its disks are complete."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from v2v.errors import TargetError
from v2v.hardware import Hardware
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
    try:
        engine.change("create the VM", lambda system: system.vms_service().add(vm))
    except TargetError as exc:
        if exc.id != "target-refused" or find(engine, uuid) is None:
            raise
        log.info("the answer was lost, and curl has asked again: %s", exc)


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
