"""What libvirt knows of a VM: asked for once, read-only, and kept as values."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar

from v2v.errors import SourceError
from v2v.inputs._libvirt.connection import ask
from v2v.inputs._libvirt.uri import ssh_host
from v2v.inputs._libvirt.volumes import Place, find_volume
from v2v.inputs._xml import parse_xml
from v2v.options import did_you_mean
from v2v.run import Run
from v2v.texts import some

T = TypeVar("T")

UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

PAUSED, SLEEPING, CRASHED = "paused", "suspended by its guest", "crashed, but still there"
STATES = {  # virDomainState of what is not shut off
    1: "running",
    2: "running",  # "blocked" on a resource, as Xen says of a VM that is idle
    3: PAUSED,
    4: "being shut down",
    5: "being shut off",
    6: CRASHED,
    7: SLEEPING,
}


@dataclass(frozen=True, slots=True)
class Vm:
    """`xml` is that of the running VM where it runs, else what it is started from."""

    uri: str  # as libvirt completed it
    name: str
    uuid: str
    xml: bytes
    state: str | None  # None: shut off
    saved: bool  # its memory is kept in a file
    snapshots: tuple[str, ...]  # oldest first
    volumes: dict[tuple[str, str], Place]  # (pool, volume)

    def virsh(self, command: str) -> str:
        """A command for hints. A name may begin as an option does, unless one stands before it."""
        return f"virsh -c {quote(self.uri)} {command} --domain {quote(self.name)}"


def read_vm(uri: str | None, word: str, password_file: Path | None, run: Run) -> Vm:
    """Ask the libvirt at `uri` (None: libvirt's default) for the VM of that name or UUID."""
    if uri is not None:
        ssh_host(uri)

    def answer(libvirt: Any, connection: Any) -> Vm:
        ssh_host(connection.getURI())
        return vm_of(libvirt, connection, find_domain(libvirt, connection, word))

    return ask(uri, password_file, answer, run)


def vm_of(libvirt: Any, connection: Any, domain: Any) -> Vm:
    """All that is known of a domain of the binding's, as values."""
    active = bool(domain.isActive()) and connection.getType() != "TEST"  # its VMs always run
    xml = domain.XMLDesc(0 if active else libvirt.VIR_DOMAIN_XML_INACTIVE).encode()
    return Vm(
        uri=connection.getURI(),
        name=domain.name(),
        uuid=domain.UUIDString(),
        xml=xml,
        state=STATES.get(domain.state()[0], "running") if active else None,
        saved=bool(_if_supported(libvirt, domain.hasManagedSaveImage)),
        snapshots=_snapshots(libvirt, domain),
        volumes=_volumes(connection, xml),
    )


def find_domain(libvirt: Any, connection: Any, word: str) -> Any:
    """By name or, where none has that, by UUID."""
    lookups = [connection.lookupByName]
    if UUID.fullmatch(word):
        lookups.append(connection.lookupByUUIDString)
    for lookup in lookups:
        try:
            return lookup(word)
        except libvirt.libvirtError as exc:
            if exc.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
    names = sorted(domain.name() for domain in connection.listAllDomains())
    raise _unknown(word, names, connection.getURI())


def _snapshots(libvirt: Any, domain: Any) -> tuple[str, ...]:
    parents_first = libvirt.VIR_DOMAIN_SNAPSHOT_LIST_TOPOLOGICAL
    found = _if_supported(libvirt, lambda: domain.listAllSnapshots(parents_first))
    return tuple(snapshot.getName() for snapshot in found or ())


def _if_supported(libvirt: Any, call: Callable[[], T]) -> T | None:
    """None from drivers that do not know of such a thing."""
    try:
        return call()
    except libvirt.libvirtError as exc:
        if exc.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
            return None
        raise


def _volumes(connection: Any, xml: bytes) -> dict[tuple[str, str], Place]:
    """Every volume that a disk names, or what stands below one."""
    sources = parse_xml(xml, "the XML that libvirt gave").iterfind("devices/disk//source")
    named = {(source.get("pool"), source.get("volume")) for source in sources}
    return {
        (pool, volume): find_volume(connection, pool, volume)
        for pool, volume in sorted((p, v) for p, v in named if p and v)
    }


def _unknown(word: str, names: list[str], uri: str) -> SourceError:
    there = f"there are: {some(names)}" if names else "there is none"
    return SourceError(
        f"{word}: {uri} has no VM of this name or UUID",
        id="libvirt-vm-unknown",
        hint=did_you_mean(word, names) or (there if names else f"{there}: is -ic right?"),
    )
