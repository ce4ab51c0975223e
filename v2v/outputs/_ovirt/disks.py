"""The disks of a job at the engine: made, found again, and removed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from v2v.errors import TargetError
from v2v.outputs._ovirt import names
from v2v.outputs._ovirt.domains import Domain, initial_size, is_sparse
from v2v.outputs._ovirt.engine import Engine
from v2v.outputs._ovirt.options import UploadFormat, UploadOptions
from v2v.run import Run

CREATE_SECONDS = 1800.0  # preallocating a large disk means writing it
REMOVE_SECONDS = 600.0


def service(system: Any, uuid: str) -> Any:
    return system.disks_service().disk_service(uuid)


def find(engine: Engine, uuid: str) -> Any | None:
    return engine.find("look for the disk", lambda system: service(system, uuid).get())


def status(disk: Any) -> str:
    """ok, locked or illegal."""
    return getattr(disk.status, "value", None) or "unknown"


def is_ours(disk: Any, run: Run) -> bool:
    """Descriptions can be edited; a UUID that follows from the job's id stays."""
    return bool(disk.description == names.marker(run)) or names.is_own_uuid(disk.id, run)


def find_own(engine: Engine, uuid: str) -> Any | None:
    """If it is there, and ours: another may have got the UUID that the user chose."""
    disk = find(engine, uuid)
    return disk if disk is not None and is_ours(disk, engine.run) else None


def of_job(engine: Engine, run: Run) -> list[Any]:
    """All disks of the job, also those that it could not journal any more."""
    search = f'description="{names.marker(run)}"'
    found = engine.call("look for disks", lambda s: s.disks_service().list(search=search))
    return [disk for disk in found if is_ours(disk, run)]


def add(
    engine: Engine,
    options: UploadOptions,
    domain: Domain,
    *,
    uuid: str,
    name: str,
    size: int,
    data: int,
) -> None:
    """Ask for a blank disk; `wait_ok` tells when it is there. `data`: bytes it will hold."""
    types, cow = engine.types, options.format is UploadFormat.QCOW2
    disk = types.Disk(
        id=uuid,
        name=name,
        description=names.marker(engine.run),
        format=types.DiskFormat.COW if cow else types.DiskFormat.RAW,
        provisioned_size=size,
        initial_size=initial_size(options, domain, size, data),
        sparse=is_sparse(options, domain),
        storage_domains=[types.StorageDomain(id=domain.id)],
    )
    engine.make(
        "create a disk",
        lambda system: system.disks_service().add(disk),
        lambda: find_own(engine, uuid),
    )


def wait_ok(engine: Engine, uuid: str, seconds: float = CREATE_SECONDS) -> Any:
    """The disk, once nothing is done to it any more. TargetError when it is gone or useless."""

    def look() -> Any | None:
        disk = find(engine, uuid)
        if disk is None or status(disk) == "illegal" or not is_ours(disk, engine.run):
            raise TargetError(
                f"{engine.where.host}: the disk {uuid} {_loss(disk)}",
                id="target-lost",
                hint="the events in the engine's portal tell why",
            )
        return disk if status(disk) == "ok" else None

    return engine.wait(f"the disk {uuid} stays locked", look, seconds)


def _loss(disk: Any | None) -> str:
    if disk is None:
        return "is gone"
    return (
        "was given up by the engine" if status(disk) == "illegal" else "is not the job's any more"
    )


def remove(engine: Engine, uuids: Sequence[str]) -> None:
    """Those of them that are ours; returns when they are gone. Nothing may transfer to them."""
    waiting = [uuid for uuid in uuids if _unlocked(engine, uuid)]
    for uuid in waiting:
        engine.change("remove the disk", lambda s, u=uuid: service(s, u).remove())  # type: ignore[misc]
    for uuid in waiting:
        engine.wait(
            f"the disk {uuid} is not removed",
            lambda u=uuid: True if find(engine, u) is None else None,  # type: ignore[misc]
            REMOVE_SECONDS,
        )


def _unlocked(engine: Engine, uuid: str) -> bool:
    """Whether there is something to remove, once it can be removed."""

    def look() -> bool | None:
        disk = find(engine, uuid)
        if disk is None:
            return False
        if not is_ours(disk, engine.run):
            engine.run.warn(
                f"the disk {uuid} does not have the description that v2v gave it: it is left",
                id="target-leftover",
                hint="if it is not another's, remove it in the engine's portal",
            )
            return False
        return True if status(disk) != "locked" else None

    return engine.wait(f"the disk {uuid} stays locked", look, REMOVE_SECONDS)
