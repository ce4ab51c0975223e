"""The VMs of a libvirt, for `v2v list`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from v2v.errors import Cancelled, V2VError
from v2v.events import Event, Warned, ignore
from v2v.inputs._domain import MAX_DEVICES, read_domain
from v2v.inputs._domain.devices import is_fixed
from v2v.inputs._domain.disks import read_disk_element
from v2v.inputs._libvirt.connection import ask
from v2v.inputs._libvirt.host import PAUSED, SLEEPING, Vm, vm_of
from v2v.inputs._libvirt.uri import ssh_host
from v2v.inputs._xml import parse_xml
from v2v.run import Run
from v2v.types import Finding, GuestSummary, Source

POWER = {None: "off", PAUSED: "suspended", SLEEPING: "suspended"}  # Vm.state; else it is on
# Errors of reading a VM that are none once it is shut down.
PASSING = ("source-running", "libvirt-managed-save")


@dataclass(frozen=True, slots=True)
class Listed:
    """`sizes`: capacity and allocation of each disk that libvirt could tell of, in bytes."""

    vm: Vm
    sizes: tuple[tuple[int, int], ...]


def read_vms(uri: str | None, password_file: Path | None, run: Run) -> list[Listed]:
    """Ask the libvirt at `uri` (None: libvirt's default) for all of its VMs."""
    if uri is not None:
        ssh_host(uri)

    def answer(libvirt: Any, connection: Any) -> list[Listed]:
        ssh_host(connection.getURI())
        domains = connection.listAllDomains()
        found = [_read(libvirt, connection, domain) for domain in domains]
        return [one for one in found if one is not None]

    return ask(uri, password_file, answer, run)


def _read(libvirt: Any, connection: Any, domain: Any) -> Listed | None:
    """None if it was removed meanwhile."""
    try:
        vm = vm_of(libvirt, connection, domain)
        sizes = [_size(libvirt, domain, target) for target in _targets(vm)]
    except libvirt.libvirtError as exc:
        if exc.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise
    return Listed(vm, tuple(size for size in sizes if size))


def _targets(vm: Vm) -> list[str]:
    elements = parse_xml(vm.xml, vm.name).iterfind("devices/disk")
    return [read_disk_element(one).target for one in elements if is_fixed(one)][:MAX_DEVICES]


def _size(libvirt: Any, domain: Any, target: str) -> tuple[int, int] | None:
    """None of a disk whose image is gone, or that libvirt cannot reach while the VM is off."""
    try:
        capacity, allocation, _ = domain.blockInfo(target)
    except libvirt.libvirtError as exc:
        if exc.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            raise
        return None
    return capacity, allocation


def summary(listed: Listed, read: Callable[[Vm, Run], Source], run: Run) -> GuestSummary:
    """What `v2v list` tells of a VM.

    `read` describes it as for a conversion: its errors and warnings tell what stands in the way.
    """
    vm = listed.vm
    findings: list[Finding] = []

    def note(event: Event) -> None:
        if isinstance(event, Warned):
            findings.append(Finding("warning", event.id, event.text, event.hint))

    try:
        read(vm, run.part(emit=note))
    except Cancelled:
        raise
    except V2VError as exc:
        severity = "warning" if exc.id in PASSING else "blocker"
        findings.append(Finding(severity, exc.id, exc.message, exc.hint))
    return replace(_facts(listed, run), findings=tuple(findings))


def _facts(listed: Listed, run: Run) -> GuestSummary:
    """What needs no look at the disks."""
    vm, sizes = listed.vm, listed.sizes
    bare = GuestSummary(
        name=vm.name,
        id=vm.uuid,
        power="suspended" if vm.saved else POWER.get(vm.state, "on"),
        snapshots=vm.snapshots,
    )
    try:
        domain = read_domain(vm.xml, vm.name, run.part(emit=ignore), mode="libvirt")
    except V2VError:  # of which the findings tell
        return bare
    complete = len(sizes) == len(domain.disks)
    return replace(
        bare,
        disks=len(domain.disks),
        provisioned=sum(capacity for capacity, _ in sizes) if complete else None,
        used=sum(allocation for _, allocation in sizes) if complete else None,
        firmware=domain.source.firmware,
        os=domain.source.osinfo,
        memory=domain.source.memory,
        vcpus=domain.source.vcpus,
    )
