"""The guest as a domain of a libvirt host: defined, known again, and started."""

from __future__ import annotations

import copy
import uuid
from shlex import quote
from typing import Any

from lxml import etree

from v2v.errors import TargetError
from v2v.libvirt_connection import LibvirtHost, ask
from v2v.outputs._libvirt.fit import device_name
from v2v.outputs._xml import Element
from v2v.run import Run

UUID_SPACE = uuid.UUID("b6a0a9f4-7a0e-4a53-9a43-0d7a0f3f4c11")  # drawn once, for domain_uuid
DISPENSABLE = ("sound", "panic", "vsock", "rng", "tpm")  # what a guest can do without
START_SECONDS = 300.0  # QEMU may have to set aside much memory first


def domain_uuid(run: Run) -> uuid.UUID:
    """The job's own: a domain of this UUID was defined by this job, whatever it is called now."""
    return uuid.uuid5(UUID_SPACE, run.job_id)


def lookup(libvirt: Any, connection: Any, identity: str) -> Any | None:
    try:
        return connection.lookupByUUIDString(identity)
    except libvirt.libvirtError as exc:
        if exc.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise
        return None


def define(host: LibvirtHost, domain: Element, name: str, run: Run) -> tuple[str, ...]:
    """Give the devices that the host does not take, and that were left out therefore.

    Nothing is changed where a domain of that name is there already. Safe to repeat.
    """
    identity = str(domain_uuid(run))

    def answer(libvirt: Any, connection: Any) -> tuple[str, ...]:
        if lookup(libvirt, connection, identity) is not None:
            return ()
        try:
            return _define(libvirt, connection, domain)
        except libvirt.libvirtError as exc:
            raise TargetError(
                f"-oc {host.shown} does not define {name}: {exc}",
                id="target-define",
                hint="the disks are kept: when that is repaired, `v2v resume` goes on; the domain "
                f"that was refused is in {run.folder}",
            ) from exc

    return ask(host, answer, run)


def _define(libvirt: Any, connection: Any, domain: Element) -> tuple[str, ...]:
    """Not all that a QEMU lacks is told beforehand: RHEL's has hardly any sound cards."""
    refusal: Exception | None = None
    for names in ((), *((name,) for name in DISPENSABLE), DISPENSABLE):
        left = copy.deepcopy(domain)
        dropped = [one for name in names for one in left.findall(f"devices/{name}")]
        if names and not dropped:
            continue
        for element in dropped:
            left.find("devices").remove(element)  # type: ignore[union-attr]
        try:
            connection.defineXML(etree.tostring(left, encoding="unicode"))
        except libvirt.libvirtError as exc:
            refusal = refusal or exc
            if exc.get_error_code() != libvirt.VIR_ERR_CONFIG_UNSUPPORTED:
                break
        else:
            return tuple(device_name(element) for element in dropped)
    assert refusal is not None  # noqa: S101  the first try is always made
    raise refusal


def start(host: LibvirtHost, name: str, run: Run) -> None:
    """Unless it runs."""
    identity = str(domain_uuid(run))

    def answer(libvirt: Any, connection: Any) -> None:
        domain = lookup(libvirt, connection, identity)
        if domain is None:
            raise TargetError(
                f"{name} was defined, and is gone from {host.shown}",
                id="target-lost",
                hint="has somebody undefined it? Without --start the job is at its end",
            )
        if domain.isActive():
            return
        try:
            domain.create()
        except libvirt.libvirtError as exc:
            raise TargetError(
                f"{name} is defined, and does not start: {exc}",
                id="target-start",
                hint=f"the guest is kept: `{start_command(host, name)}` starts it when that is "
                "repaired, and so does `v2v resume`",
            ) from exc

    ask(host, answer, run, seconds=START_SECONDS)


def start_command(host: LibvirtHost, name: str) -> str:
    """A name may begin as an option does, unless one stands before it."""
    where = f" -c {quote(host.uri)}" if host.uri else ""
    return f"virsh{where} start --domain {quote(name)}"
