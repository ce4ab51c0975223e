"""What is asked of the target before anything is read: whether all of it can go well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from v2v.errors import TargetError
from v2v.outputs._proxmox import cluster
from v2v.outputs._proxmox.api import Api
from v2v.outputs._proxmox.cluster import Bridge
from v2v.outputs._proxmox.config import MOST_NICS
from v2v.outputs._proxmox.names import vm_name
from v2v.outputs._proxmox.options import MODE, ProxmoxOptions
from v2v.outputs._proxmox.storages import check_target, import_storage, storages_of
from v2v.outputs._proxmox.uploads import is_readable_there
from v2v.types import DiskFormat, Source

STORAGE_PRIVILEGES = ("Datastore.AllocateSpace",)
IMPORT_PRIVILEGES = ("Datastore.AllocateTemplate", "Datastore.Allocate")  # to send, to remove
NETWORK_PRIVILEGES = ("SDN.Use",)
VM_PRIVILEGES = (
    "VM.Allocate",
    "VM.Audit",
    "VM.Config.CPU",
    "VM.Config.Disk",
    "VM.Config.HWType",
    "VM.Config.Memory",
    "VM.Config.Network",
    "VM.Config.Options",
)


@dataclass(frozen=True, slots=True)
class Room:
    node: str
    import_storage: str  # empty: the server reads our own files


def find_room(api: Api, options: ProxmoxOptions, folder: Path) -> Room:
    """`folder` is where the images are until they are sent."""
    node = cluster.choose_node(api, options.node)
    if is_readable_there(api, node, folder, DiskFormat(options.format)):
        return Room(node, "")
    cluster.check_release(api)
    known = storages_of(api, node)
    storage = import_storage(known, options.import_storage, options.storage, node)
    return Room(node, storage)


def check(
    api: Api,
    options: ProxmoxOptions,
    source: Source,
    storages: Sequence[str],
    room: Room,
    own: int | None,
) -> None:
    """`storages`: of each disk. `own`: the number of a VM that an earlier run has begun."""
    known = storages_of(api, room.node)
    for name in storages:
        check_target(known, name, room.node)
    cluster.check_name(api, vm_name(source.name), own)
    if options.vmid is not None and options.vmid != own:
        cluster.check_vmid(api, options.vmid)
    networks = _networks(cluster.bridges_of(api, room.node), source)
    cluster.check_privileges(api, {**_privileges(api, options, storages, room), **networks})


def check_nics(source: Source) -> None:
    count = len(source.nics or ())
    if count > MOST_NICS:
        raise TargetError(
            f"{MODE}: {source.name} has {count} network cards, {MOST_NICS} are possible",
            id="target-nic-count",
            hint="take some away from the source, whose networks the guest can do without",
        )


def _networks(bridges: Mapping[str, Bridge], source: Source) -> dict[str, tuple[str, ...]]:
    """Each card has a bridge; and the privileges that the bridges take."""
    found = [cluster.bridge_of(nic, bridges) for nic in source.nics or ()]
    paths = [cluster.sdn_path(bridges[name], tag) for name, tag in found]
    return {path: NETWORK_PRIVILEGES for path in paths if path}


def _privileges(
    api: Api, options: ProxmoxOptions, storages: Sequence[str], room: Room
) -> dict[str, tuple[str, ...]]:
    paths: dict[str, tuple[str, ...]] = {
        f"/storage/{name}": STORAGE_PRIVILEGES for name in storages
    }
    if room.import_storage:
        path = f"/storage/{room.import_storage}"
        paths[path] = (*paths.get(path, ()), *IMPORT_PRIVILEGES)
    power = ("VM.PowerMgmt",) if options.start else ()
    number = options.vmid or cluster.next_vmid(api)
    return {**paths, f"/vms/{number}": (*VM_PRIVILEGES, *power)}
