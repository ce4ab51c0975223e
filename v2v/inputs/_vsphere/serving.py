"""Disks of a vSphere VM as source disks, and how our reader gets at them again later."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from v2v.address import Address, is_host, parse
from v2v.endpoint import Endpoint
from v2v.errors import SourceError
from v2v.inputs._details import MODIFIED
from v2v.inputs._reader.recipe import Recipe
from v2v.inputs._reader.serve import Facts, serve_recipe
from v2v.inputs._ssh.place import SshPlace
from v2v.inputs._vmware import VOLUMES, datastore_of
from v2v.inputs._vsphere.described import DescribedVm, VmDisk
from v2v.inputs._vsphere.place import HTTPS_PORT, VspherePlace
from v2v.run import Run
from v2v.types import DiskFormat, Source, SourceDisk

# In SourceDisk.details.
PATH = "path"  # in the store, /vmfs/volumes/DS/DIR/FILE
ROOTS = "roots"  # folders that its parents are in, a line each
VM = "vm"  # the VM's reference: vm-42
SNAPSHOT = "snapshot"  # the reference of the snapshot that is read
DATACENTER = "datacenter"  # FOLDER/DATACENTER
VCENTER = "vcenter"  # "yes", or absent: files come through a vCenter
DATASTORES = "datastores"  # lines: a UUID that stands in paths, a tab, the name

PLUGIN_WORDS = ("server", "user", "vm", "password-file", "moref", "file", "path", "disk")


def source_disk(disk: VmDisk, vm: DescribedVm, location: str, facts: Facts | None) -> SourceDisk:
    """`facts`: what its headers tell, where our own reader reads it."""
    details = {
        PATH: disk.path,
        ROOTS: "\n".join(disk.roots),
        VM: vm.id,
        SNAPSHOT: vm.snapshot,
        DATACENTER: vm.datacenter,
        VCENTER: "yes" if vm.vcenter else "",
        DATASTORES: "\n".join(f"{id}\t{name}" for id, name in sorted(vm.datastores.items())),
        # What a snapshot keeps does not change.
        MODIFIED: facts.version if facts else vm.snapshot,
    }
    datastore = datastore_of(disk.path)
    return SourceDisk(
        location,
        DiskFormat.VMDK,
        facts.size if facts else disk.size,
        controller=disk.controller,
        details={key: text for key, text in details.items() if text},
        boot_order=disk.boot_order,
        storage=vm.datastores.get(datastore, datastore) if datastore else None,
    )


def folder_recipe(disk: SourceDisk, place: VspherePlace) -> Recipe:
    """Through HTTPS. The place names the datacenter, which an address need not."""
    return replace(
        _recipe(disk),
        folder=replace(place, path=disk.details.get(DATACENTER, "")),
        through_vcenter=VCENTER in disk.details,
        datastores=_datastores(disk),
    )


def _datastores(disk: SourceDisk) -> dict[str, str]:
    lines = [line.partition("\t") for line in disk.details.get(DATASTORES, "").split("\n")]
    return {id: name for id, _, name in lines if name}


def ssh_recipe(disk: SourceDisk, place: SshPlace) -> Recipe:
    return replace(_recipe(disk), ssh=place)


def _recipe(disk: SourceDisk) -> Recipe:
    return Recipe(disk.details[PATH], tuple(disk.details[ROOTS].split("\n")))


def folder_address(path: str, datacenter: str, place: VspherePlace) -> str:
    """https://VCENTER/folder/DIR/FILE?dcPath=DATACENTER&dsName=DATASTORE, for people."""
    datastore, _, file = posixpath.relpath(path, VOLUMES).partition("/")
    query = {"dcPath": datacenter, "dsName": datastore} if datacenter else {"dsName": datastore}
    port = None if place.port == HTTPS_PORT else place.port
    return Address("https", place.server, port, path=f"/folder/{file}", query=query).write()


@contextmanager
def serve_recipes(recipes: Sequence[Recipe], run: Run) -> Iterator[Sequence[Endpoint]]:
    with ExitStack() as stack:
        served = [serve_recipe(one, run, f"source-{n}") for n, one in enumerate(recipes)]
        yield [stack.enter_context(one) for one in served]


def datastore_path(disk: SourceDisk) -> str:
    """[DATASTORE] DIR/FILE, as VMware writes it."""
    return vmware_path(disk.details[PATH])


def vmware_path(path: str) -> str:
    datastore, _, file = posixpath.relpath(path, VOLUMES).partition("/")
    return f"[{datastore}] {file}"


def plugin_words(source: Source, place: VspherePlace) -> list[dict[str, str]]:
    """What words in braces stand for in a plugin's parameters, by disk: see PLUGIN_WORDS."""
    same = {
        "server": place.server,
        "user": place.user,
        "vm": source.name,
        "password-file": str(place.password_file or ""),
    }
    return [
        {
            **same,
            "moref": disk.details[VM],
            "file": datastore_path(disk),
            "path": disk.details[PATH],
        }
        for disk in source.disks
    ]


def ssh_place(word: str | None, host: str, options: SshPlace) -> SshPlace:
    """`word`: [USER@]HOST[:PORT] of -io ssh-host; without it the ESXi host that has the VM."""
    if word is not None:
        address = parse(f"ssh://{word}")
        user = address.user or options.user
        return replace(options, host=address.host, port=address.port, user=user)
    if not is_host(host):  # the server tells it; ssh would take some for options
        raise SourceError(
            f"the VM's ESXi host is called {host[:100]!r}, which is no name of a host",
            id="vsphere-ssh-host",
            hint="name it: -io ssh-host=[USER@]HOST[:PORT]",
        )
    return replace(options, host=host)
