"""What a vCenter or ESXi host has, and the one VM of it that somebody means."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from v2v.errors import SourceError
from v2v.inputs._vsphere.names import plain_name
from v2v.inputs._vsphere.place import VspherePlace
from v2v.inputs._vsphere.retrieve import Found, Wanted, retrieve_all
from v2v.options import did_you_mean
from v2v.texts import clean, some

VM = "VirtualMachine"
NAMES = ("name", "parent")
AROUND: Wanted = {
    "Folder": NAMES,
    "Datacenter": NAMES,
    "ComputeResource": NAMES,
    "HostSystem": NAMES,
    "VirtualApp": (*NAMES, "parentFolder"),
    "Datastore": (*NAMES, "summary.type", "summary.url"),
    "Network": (*NAMES, "summary"),
}
IDENTITY = ("name", "parent", "parentVApp", "config.uuid", "config.instanceUuid", "runtime.host")

DEEPEST = 100  # folders within one another
MOREF = "moref="  # before a reference that is to be nothing else


@dataclass(frozen=True, slots=True)
class Datastore:
    name: str
    type: str  # VMFS, NFS, vsan, VVOL, ...
    url: str  # ds:///vmfs/volumes/UUID/


@dataclass(frozen=True, slots=True)
class Located:
    """A VM, and where it is."""

    id: str  # its managed object reference
    name: str
    path: str  # /DATACENTER/vm/FOLDER/NAME
    datacenter: str  # FOLDER/DATACENTER; as /folder's dcPath wants it
    host: str  # the ESXi host's name; empty where it has none
    hosts: tuple[str, ...]  # where the host is: DATACENTER, [FOLDER, ...] [CLUSTER,] ESXI
    uuids: tuple[str, ...]  # of its BIOS, and of the instance
    found: Found


@dataclass(frozen=True, slots=True)
class Inventory:
    vms: tuple[Located, ...]
    networks: dict[str, str] = field(default_factory=dict)  # by reference, or an opaque one's id
    datastores: dict[str, Datastore] = field(default_factory=dict)  # by reference


def read_inventory(content: Any) -> Inventory:
    """All there is, by name. Call it in Session.call."""
    return arrange(retrieve_all(content, {VM: IDENTITY, **AROUND}))


def arrange(found: Iterable[Found]) -> Inventory:
    objects = {one.id: one for one in found}
    vms = [_located(one, objects) for one in objects.values() if one.kind == VM]
    return Inventory(
        vms=tuple(sorted(vms, key=lambda vm: (vm.name, vm.path, vm.id))),
        networks=_networks(objects.values()),
        datastores={
            one.id: Datastore(
                plain_name(one.get("name") or ""),
                one.get("summary.type") or "",
                one.get("summary.url") or "",
            )
            for one in objects.values()
            if one.kind == "Datastore"
        },
    )


def _located(vm: Found, objects: dict[str, Found]) -> Located:
    above = _above(vm, objects)
    name = plain_name(vm.get("name") or "")
    host = vm.get("runtime.host")
    esxi = objects.get(host._moId) if host is not None else None
    hosts = [*_above(esxi, objects), esxi] if esxi else []
    return Located(
        id=vm.id,
        name=name,
        path="/" + "/".join(one.get("name") or "" for one in [*above, vm]),
        datacenter=_datacenter(above) or _datacenter(hosts),
        host=plain_name(esxi.get("name") or "") if esxi else "",
        hosts=_without_root(hosts),
        uuids=tuple(filter(None, map(vm.get, ("config.uuid", "config.instanceUuid")))),
        found=vm,
    )


def _datacenter(above: list[Found]) -> str:
    """Empty where the user may not see it."""
    at = next((n for n, one in enumerate(above) if one.kind == "Datacenter"), -1)
    return "/".join(one.get("name") or "" for one in above[: at + 1])


def _above(one: Found, objects: dict[str, Found]) -> list[Found]:
    """What it lies in, outermost first; the root folder, which has no name for people, is not."""
    above: list[Found] = []
    while len(above) < DEEPEST:
        # The parent of a vApp is where its memory comes from; its VMs have no parent at all.
        inside = one.get("parentFolder") or one.get("parentVApp") or one.get("parent")
        parent = objects.get(inside._moId) if inside is not None else None
        if parent is None:
            break
        above.insert(0, parent)
        one = parent
    return above


def _without_root(objects: list[Found]) -> tuple[str, ...]:
    """As addresses have it: without the folder "host" of each datacenter, and without the compute
    resource that a host alone is."""
    kept: list[Found] = []
    for one in objects:
        below_datacenter = kept and kept[-1].kind == "Datacenter" and one.kind == "Folder"
        if not below_datacenter and one.kind != "ComputeResource":
            kept.append(one)
    return tuple(plain_name(one.get("name") or "") for one in kept)


def _networks(found: Iterable[Found]) -> dict[str, str]:
    names = {}
    for one in found:
        if "Network" in one.kind or "Portgroup" in one.kind:
            name = plain_name(one.get("name") or "")
            names[one.id] = name
            opaque = getattr(one.get("summary"), "opaqueNetworkId", None)
            if opaque:
                names[opaque] = name
    return names


# Finding one --------------------------------------------------------------------------------------


def find_vm(inventory: Inventory, word: str, place: VspherePlace) -> Located:
    """By name, inventory path, UUID or reference, in what the path of -ic leaves."""
    here = [vm for vm in inventory.vms if is_below(vm, place.path)]
    found = _matching(here, word)
    if len(found) == 1:
        return found[0]
    if found:
        raise _ambiguous(word, found, place)
    if elsewhere := _matching(inventory.vms, word):
        raise _elsewhere(elsewhere[0], word, place)
    raise _unknown(word, here, place)


def is_below(vm: Located, path: str) -> bool:
    """Whether the VM is where the path of a vpx:// address points: a datacenter, perhaps a cluster
    or a host in it; a folder of hosts, too."""
    wanted = [plain_name(part) for part in path.split("/") if part]
    datacenter = [plain_name(part) for part in vm.datacenter.split("/") if part]
    first = datacenter[: len(wanted)]
    return list(vm.hosts[: len(wanted)]) == wanted or (first == wanted and not vm.hosts)


def _matching(vms: Iterable[Located], word: str) -> list[Located]:
    """The first way of naming a VM that fits any.

    A name and a reference count alike: else whoever calls his VM vm-42 has it taken for another's.
    """
    vms, path, id = list(vms), f"/{word.strip('/')}", _uuid(word)
    ways = (
        [vm for vm in vms if word == f"{MOREF}{vm.id}"],
        [vm for vm in vms if word in (vm.name, vm.found.get("name"), vm.id)],
        [vm for vm in vms if path in (vm.path, plain_name(vm.path))],
        [vm for vm in vms if id is not None and id in map(_uuid, vm.uuids)],
    )
    return next((found for found in ways if found), [])


def _uuid(text: str) -> str | None:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None


def _unknown(word: str, vms: Sequence[Located], place: VspherePlace) -> SourceError:
    names = sorted({vm.name for vm in vms})
    there = f"there are: {some([clean(name) for name in names])}"
    where = f"{place.shown}, below {place.path}," if place.path else place.shown
    hint = did_you_mean(word, names) or (there if names else "it shows none to this user at all")
    return SourceError(
        f"{where} has no VM {word!r}",
        id="vsphere-vm-unknown",
        hint=f"{clean(hint)}; a name, an inventory path, a UUID or a reference (vm-42) names one",
    )


def _elsewhere(vm: Located, word: str, place: VspherePlace) -> SourceError:
    where = "/".join(vm.hosts) or vm.datacenter
    return SourceError(
        f"{place.shown} has {clean(word)} not below {place.path}, but at {clean(where)}",
        id="vsphere-vm-unknown",
        hint="correct the address of -ic, or leave out what follows the vCenter: then all is seen",
    )


def _ambiguous(word: str, found: Sequence[Located], place: VspherePlace) -> SourceError:
    shown = [f"{clean(vm.path)} ({MOREF}{vm.id})" for vm in found]
    return SourceError(
        f"{place.shown} has {len(found)} VMs {word!r}",
        id="vsphere-vm-ambiguous",
        hint=f"give the path or the reference of one: {some(shown)}",
    )
