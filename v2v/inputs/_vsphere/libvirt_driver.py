"""A VM through libvirt's own driver for VMware: https://libvirt.org/drvesx.html.

It tells less than the API does: no firmware, no slots of network cards, no snapshots of disks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from v2v.errors import SourceError, UsageError, V2VError
from v2v.inputs._domain import read_domain
from v2v.inputs._domain.disks import DomainDisk
from v2v.inputs._libvirt.connection import ask, binding
from v2v.inputs._libvirt.host import Vm, find_domain, vm_of
from v2v.inputs._vsphere import errors
from v2v.inputs._vsphere.described import DescribedVm, VmDisk
from v2v.inputs._vsphere.names import folder_of, store_path
from v2v.inputs._vsphere.place import VspherePlace
from v2v.inputs._xml import find_text, parse_xml
from v2v.run import Run

T = TypeVar("T")

VMWARE = "{http://libvirt.org/schemas/domain/vmware/1.0}"
QUIET = "4"  # errors only: it warns of every property of vSphere that is newer than itself


@dataclass(frozen=True, slots=True)
class LibvirtPlace:
    """The place, and the same as libvirt wants it."""

    place: VspherePlace
    uri: str


def read_vm(at: LibvirtPlace, word: str, run: Run, *, mode: str) -> DescribedVm:
    """SourceError or UsageError where the VM cannot be read. It must be shut down."""
    check_place(at.place)

    def answer(libvirt: Any, connection: Any) -> Vm:
        return vm_of(libvirt, connection, find_domain(libvirt, connection, word))

    vm = _asked(at, answer, run)
    if vm.state is not None:
        raise SourceError(
            f"{vm.name} is {vm.state}: its disks change while they are read",
            id="source-running",
            hint="shut it down; a snapshot of it is read with --vsphere-api=pyvmomi",
        )
    return describe(vm, at.place, run, mode=mode)


def describe(vm: Vm, place: VspherePlace, run: Run, *, mode: str) -> DescribedVm:
    domain = read_domain(vm.xml, vm.name, run, mode=mode)
    root = parse_xml(vm.xml, vm.name)
    # The driver calls port groups bridges, and every clock one of UTC.
    nics = tuple(replace(nic, kind="network") for nic in domain.source.nics or ())
    return DescribedVm(
        source=replace(domain.source, nics=nics, rtc_utc=None, uuid=_uuid(domain.source.uuid)),
        disks=tuple(map(_disk, domain.disks)),
        id=find_text(root, f"{VMWARE}moref") or "",
        datacenter=find_text(root, f"{VMWARE}datacenterpath") or "",
        host=place.path.rpartition("/")[2] or place.server,
        vcenter=place.scheme == "vpx",
    )


def _uuid(text: str | None) -> str | None:
    """It makes one of zeroes where the VM has none."""
    return text if text and text.strip("0-") else None


def only_api(what: str) -> UsageError:
    return UsageError(
        f"{what} takes vSphere's API, which libvirt does not offer",
        id="vsphere-libvirt",
        hint="use --vsphere-api=pyvmomi; `pip install pyvmomi` installs it",
    )


def check_place(place: VspherePlace) -> None:
    """UsageError for what only the API can do."""
    if place.scheme == "vpx" and not place.path:
        raise UsageError(
            "libvirt wants the ESXi host in -ic: vpx://USER@VCENTER/DATACENTER/[CLUSTER/]ESXI",
            id="vsphere-uri",
            hint="or let v2v look everywhere: --vsphere-api=pyvmomi; "
            "`pip install pyvmomi` installs it",
        )
    for key, value in (("cafile", place.cafile), ("thumbprint", place.thumbprint)):
        if value is not None:
            raise UsageError(
                f"-io {key} cannot be given to libvirt, which goes by this host's own certificates",
                id="vsphere-libvirt",
                hint="use --vsphere-api=pyvmomi, or have this host trust the CA: "
                "update-ca-certificates, or update-ca-trust",
            )


def _disk(disk: DomainDisk) -> VmDisk:
    if disk.kind != "file":
        raise SourceError(
            f"{disk.label} is no file on a datastore, but a {disk.kind}",
            id="vsphere-path",
            hint="is it a raw device mapping? Make a virtual disk of it first",
        )
    path = store_path(disk.path)
    return VmDisk(
        label=disk.label,
        path=path,
        roots=(folder_of(path),),
        controller=disk.controller,
        boot_order=disk.boot_order,
    )


def _asked(at: LibvirtPlace, answer: Callable[[Any, Any], T], run: Run) -> T:
    with _quiet():
        binding()
    try:
        return ask(at.uri, at.place.password_file, answer, run)
    except V2VError as exc:
        if exc.id not in ("libvirt-failed", "libvirt-auth"):
            raise
        raise _clear(at, str(exc.__cause__), exc) from exc


def _clear(at: LibvirtPlace, text: str, exc: V2VError) -> V2VError:
    """It has one code for all that goes wrong at VMware, and tells it in words."""
    if exc.id == "libvirt-auth" or "call to 'Login'" in text:
        return errors.auth(at.place, "the user or the password is wrong")
    if "certificate" in text:
        return errors.untrusted(at.place, text)
    if "Could not find" in text and "specified in" in text:
        return UsageError(
            f"-ic {at.uri}: {text}",
            id="vsphere-uri",
            hint="libvirt wants the whole way: vpx://USER@VCENTER/DATACENTER/[CLUSTER/]ESXI",
        )
    if "curl_easy_perform" in text:
        return errors.unreachable(at.place, text)
    return exc


@contextmanager
def _quiet() -> Iterator[None]:
    """libvirt takes this from the environment, when it is loaded."""
    name = "LIBVIRT_DEBUG"
    if name in os.environ:
        yield
        return
    os.environ[name] = QUIET
    try:
        yield
    finally:
        del os.environ[name]
