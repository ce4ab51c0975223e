"""The job's volumes at libvirt: made, found again, and removed."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lxml import etree

from v2v.errors import TargetError
from v2v.outputs._libvirt.answers import parse_xml
from v2v.outputs._libvirt.facts import find_pool, volume_length
from v2v.outputs._libvirt.volumes import MAKING, Volume, is_own
from v2v.outputs._xml import add
from v2v.run import Run
from v2v.types import Allocation

BUSY_SECONDS = (0.2, 1.0, 3.0)


def make(
    libvirt: Any,
    connection: Any,
    volume: Volume,
    allocation: Allocation,
    run: Run,
    *,
    length: int,
) -> None:
    """Anew, if the job has made it before. What will be made is written down first."""
    making = f"{MAKING}:{volume.index}"
    if found := find_unused(libvirt, connection, volume, run):
        delete(libvirt, found)
    run.journal.put(making, length)
    try:
        create(libvirt, connection, volume, allocation, length=length)
    except libvirt.libvirtError as exc:
        taken = exc.get_error_code() == libvirt.VIR_ERR_STORAGE_VOL_EXIST
        if taken:  # it is somebody else's
            run.journal.drop([making])
        raise _cannot_make(volume, exc, taken=taken) from exc


def create(
    libvirt: Any, connection: Any, volume: Volume, allocation: Allocation, *, length: int
) -> None:
    """Have libvirt make it, raw, of `length` bytes; blank, but for a logical volume."""
    pool = find_pool(libvirt, connection, volume.pool)
    if not _has_folder(pool, volume):
        raise _pool_gone(volume, hint="define the pool as it was, or start the migration again")
    root = etree.Element("volume")
    add(root, "name", volume.name)
    add(root, "capacity", str(length), unit="bytes")
    # A logical volume whose allocation is less than its capacity would be thin, a snapshot.
    full = volume.block or allocation is Allocation.PREALLOCATED
    add(root, "allocation", str(length if full else 0), unit="bytes")
    if not volume.block:
        add(add(root, "target"), "format", type="raw")
    pool.createXML(etree.tostring(root, encoding="unicode"), 0)


def delete(libvirt: Any, found: Any) -> None:
    """Remove a volume, libvirt's own object."""
    for pause in (*BUSY_SECONDS, None):
        try:
            found.delete(0)
            return
        except libvirt.libvirtError as exc:
            if exc.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID or pause is None:
                raise
            time.sleep(pause)  # the daemon has not noticed yet that an upload was given up


def find_own(libvirt: Any, connection: Any, volume: Volume, run: Run) -> Any | None:
    """libvirt's volume, if it is there and this job made it. TargetError where its pool is gone."""
    if f"{MAKING}:{volume.index}" not in run.journal:
        return None
    found = _lookup(libvirt, connection, volume)
    if found is None:
        pools = connection.listAllStoragePools()
        if not any(pool.name() == volume.pool and _has_folder(pool, volume) for pool in pools):
            hint = f"define the pool again; if its volumes are gone for good, remove {run.folder}"
            raise _pool_gone(volume, hint=hint)
        return None
    return found if is_own(volume, volume_length(libvirt, found), run) else None


def find_unused(libvirt: Any, connection: Any, volume: Volume, run: Run) -> Any | None:
    """The same, unless a domain has it: ours was removed, then, and this is another of its size."""
    found = find_own(libvirt, connection, volume, run)
    return None if found and volume.location in used_paths(libvirt, connection) else found


def _lookup(libvirt: Any, connection: Any, volume: Volume) -> Any | None:
    """libvirt's volume, or None. Its pool may have got another name, and its name another pool."""

    def by_name() -> Any:
        return connection.storagePoolLookupByName(volume.pool).storageVolLookupByName(volume.name)

    for find in (by_name, lambda: connection.storageVolLookupByPath(volume.location)):
        try:
            found = find()
            if Path(found.path()) == Path(volume.location):
                return found
        except libvirt.libvirtError as exc:
            if exc.get_error_code() not in (
                libvirt.VIR_ERR_NO_STORAGE_POOL,
                libvirt.VIR_ERR_NO_STORAGE_VOL,
            ):
                raise
    return None


def _has_folder(pool: Any, volume: Volume) -> bool:
    """Whether the pool is where it was when the volume was planned."""
    path = parse_xml(pool.XMLDesc(0), "a storage pool").findtext("target/path") or ""
    return Path(path) == Path(volume.location).parent


def _pool_gone(volume: Volume, *, hint: str) -> TargetError:
    return TargetError(
        f"the storage pool {volume.pool} of {Path(volume.location).parent} is gone, in which "
        f"the job has the volume {volume.name}",
        id="target-storage",
        hint=hint,
    )


def used_paths(libvirt: Any, connection: Any) -> set[str]:
    """The disks that domains name."""
    found: set[str] = set()
    for domain in connection.listAllDomains():
        try:
            root = parse_xml(domain.XMLDesc(0), "a domain")
        except libvirt.libvirtError as exc:
            if exc.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
            continue  # a transient one, which ended just now
        for source in root.iterfind("devices/disk//source"):  # and those of images below
            found.update(word for key in ("file", "dev") if (word := source.get(key)))
            found.update(_of_volume(libvirt, connection, source.get("pool"), source.get("volume")))
    return found


def _of_volume(libvirt: Any, connection: Any, pool: str | None, name: str | None) -> Iterable[str]:
    if not pool or not name:
        return
    try:
        yield connection.storagePoolLookupByName(pool).storageVolLookupByName(name).path()
    except libvirt.libvirtError as exc:
        if exc.get_error_code() not in (
            libvirt.VIR_ERR_NO_STORAGE_POOL,
            libvirt.VIR_ERR_NO_STORAGE_VOL,
            libvirt.VIR_ERR_OPERATION_INVALID,  # the pool is not active
        ):
            raise


def _cannot_make(volume: Volume, exc: Exception, *, taken: bool) -> TargetError:
    return TargetError(
        f"cannot make the volume {volume.name} in the storage pool {volume.pool}: {exc}",
        id="target-exists" if taken else "target-create",
        hint="give the guest another name with -on"
        if taken
        else "see to the pool, or choose another one with -os",
    )


def lost(volume: Volume) -> TargetError:
    return TargetError(
        f"{volume.pool}/{volume.name} is gone or was replaced, though it was copied",
        id="target-lost",
        hint="start the migration again",
    )
