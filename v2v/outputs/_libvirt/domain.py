"""The guest as a domain of a libvirt host: defined, known again, and started."""

from __future__ import annotations

import uuid
from shlex import quote
from typing import Any

from v2v.errors import TargetError
from v2v.libvirt_connection import LibvirtHost, ask
from v2v.run import Run

UUID_SPACE = uuid.UUID("b6a0a9f4-7a0e-4a53-9a43-0d7a0f3f4c11")  # drawn once, for domain_uuid
START_SECONDS = 300.0  # QEMU may have to set aside much memory first


def domain_uuid(run: Run) -> uuid.UUID:
    """The job's own: a domain of this UUID was defined by this job, whatever it is called now."""
    return uuid.uuid5(UUID_SPACE, run.job_id)


def is_defined(host: LibvirtHost, run: Run) -> bool:
    identity = str(domain_uuid(run))
    return ask(host, lambda libvirt, c: lookup(libvirt, c, identity) is not None, run)


def lookup(libvirt: Any, connection: Any, identity: str) -> Any | None:
    try:
        return connection.lookupByUUIDString(identity)
    except libvirt.libvirtError as exc:
        if exc.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise
        return None


def define(host: LibvirtHost, xml: bytes, name: str, run: Run) -> None:
    """Nothing is changed where a domain of that name is there already. Safe to repeat."""
    identity = str(domain_uuid(run))

    def answer(libvirt: Any, connection: Any) -> None:
        if lookup(libvirt, connection, identity) is not None:
            return
        try:
            connection.defineXML(xml.decode().partition("?>")[2])
        except libvirt.libvirtError as exc:
            raise TargetError(
                f"-oc {host.shown} does not define {name}: {exc}",
                id="target-define",
                hint="the disks are kept: when that is repaired, `v2v resume` goes on; the domain "
                f"that was refused is in {run.folder}",
            ) from exc

    ask(host, answer, run)


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
