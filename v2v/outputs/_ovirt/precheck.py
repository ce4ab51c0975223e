"""Where at the engine a VM goes, and whether it can: looked at before anything is copied."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from v2v.errors import TargetError
from v2v.outputs._limits import check_arch
from v2v.outputs._ovirt import disks, names
from v2v.outputs._ovirt.chipset import X86
from v2v.outputs._ovirt.domains import Domain, find_domain
from v2v.outputs._ovirt.engine import Engine, shown
from v2v.outputs._ovirt.options import UploadOptions
from v2v.run import Run
from v2v.texts import clean_name
from v2v.types import ConvertedGuest, Firmware, Source

DEFAULT_CLUSTER = "Default"
# What our names of architectures are to an engine; it calls one by an older name.
ARCHITECTURES = {
    **dict.fromkeys(X86, "x86_64"),
    "ppc64le": "ppc64",
    "s390x": "s390x",
    "aarch64": "aarch64",
}
UEFI_LEVEL = (4, 3)  # of the cluster: the first with Q35 and OVMF
SECURE_LEVEL = (4, 4)  # the first with OVMF's secure boot
VDSM_ID = Path("/etc/vdsm/vdsm.id")  # of oVirt hosts: by which the engine knows this one
HOST_ID = re.compile(r"[0-9A-Za-z_:-]{1,100}")


@dataclass(frozen=True, slots=True)
class Place:
    """A cluster, and the storage domains of its data center that the disks go to."""

    cluster: str  # its id, and so on
    cluster_name: str
    arch: str | None  # as the engine names it; None: of no kind yet
    level: tuple[int, int]  # the compatibility version
    data_center: str
    domains: tuple[Domain, ...]  # of each disk
    disk_names: tuple[str, ...]


def find_place(engine: Engine, options: UploadOptions, source: Source) -> Place:
    cluster = _cluster(engine, options.cluster)
    center = _center_of(cluster)
    if center is None:
        raise TargetError(
            f"the cluster {clean_name(cluster.name)} belongs to no data center",
            id="target-cluster",
            hint="choose another with -oo rhv-cluster",
        )
    wanted = [disk.target_storage or options.storage for disk in source.disks]
    found = {name: find_domain(engine, center, name) for name in dict.fromkeys(wanted)}
    kind = getattr(getattr(cluster.cpu, "architecture", None), "value", None)
    return Place(
        cluster=cluster.id,
        cluster_name=cluster.name,
        arch=None if kind == "undefined" else kind,
        level=(
            getattr(cluster.version, "major", 4) or 4,
            getattr(cluster.version, "minor", 0) or 0,
        ),
        data_center=center,
        domains=tuple(found[name] for name in wanted),
        disk_names=tuple(names.disk_name(source.name, index) for index in range(len(wanted))),
    )


def check_names(engine: Engine, options: UploadOptions, source: Source, run: Run) -> None:
    """The VM's name is free, and so are its UUID and those of the disks; ours may be there."""
    name, own = names.vm_name(source.name), names.vm_uuid(run)
    listed = engine.call("look for VMs", lambda s: s.vms_service().list(search=f"name={name}"))
    if any(vm.name == name and vm.id != own for vm in listed):
        raise TargetError(
            f"the engine at {engine.where.host} has a VM {name}",
            id="target-exists",
            hint="give another name with -on",
        )
    for index in range(len(options.disk_uuids)):
        uuid = names.disk_uuid(index, options, run)
        disk = disks.find(engine, uuid)
        if disk is not None and not disks.is_ours(disk, run):
            raise TargetError(
                f"-oo rhv-disk-uuid={uuid}: the engine has this disk already",
                id="target-exists",
                hint="give another UUID, or leave the option out",
            )


def check_machine(place: Place, guest: ConvertedGuest, *, mode: str) -> None:
    known = {place.arch} if place.arch else set(ARCHITECTURES.values())
    check_arch(
        guest, [ours for ours, theirs in ARCHITECTURES.items() if theirs in known], mode=mode
    )


def check_firmware(place: Place, firmware: Firmware | None, *, secure_boot: bool) -> None:
    if firmware is not Firmware.UEFI:
        return
    needed, what = (SECURE_LEVEL, "secure boot") if secure_boot else (UEFI_LEVEL, "UEFI")
    if place.level < needed:
        level = ".".join(map(str, place.level))
        raise TargetError(
            f"the VM needs {what}: the cluster {clean_name(place.cluster_name)} has "
            f"compatibility version {level}, which does not know it",
            id="target-firmware",
            hint=f"a cluster of {needed[0]}.{needed[1]} or newer does: -oo rhv-cluster=NAME",
        )


def this_host(engine: Engine, place: Place) -> str | None:
    """The id of the oVirt host that we run on, if we do, and if it can reach the disks: then
    their data need not pass through the network."""
    try:
        known = VDSM_ID.read_text().split("\n")[0].strip()
    except OSError:
        return None  # of the most hosts
    if not HOST_ID.fullmatch(known):
        return None
    hosts = engine.call(
        "look for this host", lambda s: s.hosts_service().list(search=f"hw_id={known}")
    )
    clusters = {one.id for one in _clusters(engine) if _center_of(one) == place.data_center}
    ready = [
        host.id
        for host in hosts
        if getattr(host.status, "value", None) == "up"
        and getattr(host.cluster, "id", None) in clusters
    ]
    return ready[0] if len(ready) == 1 else None


def _clusters(engine: Engine) -> list[Any]:
    return list(engine.call("list the clusters", lambda s: s.clusters_service().list()))


def _center_of(cluster: Any) -> str | None:
    return getattr(cluster.data_center, "id", None)


def _cluster(engine: Engine, name: str | None) -> Any:
    clusters = _clusters(engine)
    if name is None and len(clusters) == 1:
        return clusters[0]
    for one in clusters:
        if one.name == (name or DEFAULT_CLUSTER):
            return one
    what = f"-oo rhv-cluster={name}: no such cluster;" if name else "which cluster?"
    raise TargetError(
        f"{what} {engine.where.host} has: {shown(one.name for one in clusters)}",
        id="target-cluster",
        hint="choose one with -oo rhv-cluster=NAME",
    )
