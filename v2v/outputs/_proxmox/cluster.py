"""What there is at the target: nodes, bridges, VMs, privileges; and what cannot go well."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from v2v.errors import TargetError, UsageError
from v2v.outputs._proxmox.api import Api
from v2v.outputs._proxmox.names import listed
from v2v.texts import clean
from v2v.types import Nic

FIRST_RELEASE = (8, 4)
VNET = "vnet"  # the type of a bridge that software-defined networking makes


@dataclass(frozen=True, slots=True)
class Node:
    node: str
    status: str = "unknown"


@dataclass(frozen=True, slots=True)
class Release:
    version: str = ""  # 9.0.11


@dataclass(frozen=True, slots=True)
class Bridge:
    iface: str
    type: str = "bridge"


@dataclass(frozen=True, slots=True)
class Guest:
    vmid: int
    node: str = ""
    name: str = ""


def choose_node(api: Api, wanted: str | None) -> str:
    """The node that gets the VM: the one asked for, or the only one that there is."""
    nodes = {one.node: one for one in api.get("nodes", list[Node], "list the nodes")}
    online = [one.node for one in nodes.values() if one.status == "online"]
    if wanted is None and len(nodes) != 1:
        raise UsageError(
            f"{api.place.host} is one of {len(nodes)} nodes",
            id="option-required",
            hint=f"say which gets the VM: -oo node=NAME; online: {listed(online)}",
        )
    name = wanted or next(iter(nodes))
    if name not in nodes:
        raise TargetError(
            f"-oo node={name}: there is no such node, or {api.place.user} may not see it",
            id="target-node",
            hint=f"there is: {listed(nodes)}",
        )
    if name not in online:
        raise TargetError(
            f"node {name} is {clean(nodes[name].status)}",
            id="target-node",
            hint=f"start it, or choose another with -oo node=NAME; online: {listed(online)}",
        )
    return name


def check_release(api: Api) -> None:
    """Whether the node that answers takes images of disks: 8.3 takes OVAs alone."""
    version = api.get("version", Release, "get the version").version
    match = re.match(r"(\d+)\.(\d+)", version)
    if match and (int(match[1]), int(match[2])) < FIRST_RELEASE:
        raise TargetError(
            f"{api.place.host} is Proxmox VE {clean(version[:20])}, which takes no images of disks",
            id="target-old",
            hint="upgrade it to 8.4 or later; or use -o local on a node, and `qm disk import`",
        )


def bridges_of(api: Api, node: str) -> dict[str, Bridge]:
    found = api.get(f"nodes/{node}/network", list[Bridge], "list the bridges", type="any_bridge")
    return {one.iface: one for one in found}


def sdn_path(bridge: Bridge, tag: int | None) -> str | None:
    """Where the privilege to use it is asked for. None: of a VNet, whose zone is not told."""
    if bridge.type == VNET:
        return None
    return f"/sdn/zones/localnetwork/{bridge.iface}" + (f"/{tag}" if tag is not None else "")


def bridge_of(nic: Nic, bridges: Mapping[str, object]) -> tuple[str, int | None]:
    """Bridge and VLAN of a card. BRIDGE.N is VLAN N of the bridge, unless it is one itself."""
    bridge, _, tag = nic.network.rpartition(".")
    if nic.network not in bridges and bridge in bridges and tag.isdecimal():
        if 1 <= int(tag) <= 4094:
            return bridge, int(tag)
    elif nic.network in bridges:
        return nic.network, None
    name = clean(nic.network)
    raise TargetError(
        f"a network card is on {name}, and the node has no such bridge, or the user may not see it",
        id="target-network",
        hint=f"say where it goes: --{nic.kind} '{name}:BRIDGE'; there is: {listed(bridges)}; "
        "BRIDGE.N is its VLAN N",
    )


def check_name(api: Api, name: str, own: int | None) -> None:
    """The server takes two VMs of one name; nobody could tell them apart. `own`: our VM."""
    found = api.get("cluster/resources", list[Guest], "list the VMs", type="vm")
    for guest in found:
        if guest.name.lower() == name.lower() and guest.vmid != own:
            raise TargetError(
                f"there is a VM {clean(guest.name)} already: {guest.vmid} on {clean(guest.node)}",
                id="target-exists",
                hint="give the guest another name with -on, or remove that VM",
            )


def next_vmid(api: Api) -> int:
    return api.get("cluster/nextid", int, "get a free VM number")


def check_vmid(api: Api, vmid: int) -> None:
    try:
        api.get("cluster/nextid", int, "see whether the VM's number is free", vmid=vmid)
    except TargetError as exc:
        if exc.id != "target-refused":
            raise
        raise vmid_taken(vmid) from exc


def vmid_taken(vmid: int) -> TargetError:
    return TargetError(
        f"-oo vmid={vmid}: the number is taken",
        id="target-exists",
        hint="choose another, or leave it out: then it is the next free one",
    )


def check_privileges(api: Api, needed: Mapping[str, Sequence[str]]) -> None:
    """Refuse when the user lacks any. `needed`: the privileges on each path.

    Else much would be copied before the first call is refused.
    """
    if api.place.is_root:
        return
    for path, names in needed.items():
        kind = dict[str, dict[str, int]]
        found = api.get("access/permissions", kind, "see what one may do", path=path)
        missing = [name for name in names if name not in found.get(path, {})]
        if missing:
            raise TargetError(
                f"{api.place.who} lacks {', '.join(missing)} on {path}",
                id="target-forbidden",
                hint="Datacenter > Permissions: give the user, and the token, a role that has them "
                "(PVEVMAdmin on /vms, PVEDatastoreAdmin on storages, PVESDNUser on /sdn/zones)",
            )
