"""Which host a libvirt URI means, and whether its files can be read from here."""

from __future__ import annotations

from pathlib import Path

from v2v.address import parse
from v2v.errors import UsageError
from v2v.inputs._domain.sources import SshHost

VMWARE = ("esx", "vpx", "gsx")
SSH_TRANSPORTS = ("ssh", "libssh", "libssh2")
LOCAL_TRANSPORTS = ("", "unix")
FILES = {"identity": "keyfile", "known_hosts": "known_hosts"}  # our names: those in the URI


def ssh_host(uri: str) -> SshHost | None:
    """The host whose files the VMs of this URI name; None: it is this one.

    UsageError for hosts whose files v2v cannot read: https://libvirt.org/uri.html.
    """
    try:
        address = parse(uri)
    except UsageError as exc:
        if exc.id != "uri-invalid":
            raise
        raise _invalid(uri) from exc
    driver, _, transport = address.scheme.partition("+")
    if not driver:
        raise _invalid(uri)
    if driver in VMWARE:
        raise _vmware(uri)
    if transport in SSH_TRANSPORTS:
        for key, path in ssh_files(uri).items():
            _check_absolute(uri, key, path)
        return SshHost(address.host or "localhost", address.user, address.port)
    if transport in LOCAL_TRANSPORTS and not address.host:
        return None
    raise _transport(uri, transport, address.host)


def ssh_files(uri: str) -> dict[str, Path]:
    """The files that the URI gives libvirt's own ssh, as v2v.inputs._images.Access calls them."""
    query = parse(uri).query
    return {ours: Path(query[theirs]) for ours, theirs in FILES.items() if theirs in query}


def _check_absolute(uri: str, key: str, path: Path) -> None:
    """A job is resumed from other folders, too; and libvirt knows no ~."""
    if not path.is_absolute():
        raise UsageError(
            f"-ic {uri}: {FILES[key]}={path} is not an absolute path",
            id="libvirt-uri-file",
            hint=f"write the whole path, from / on: {FILES[key]}=/.../{path.name}",
        )


def _invalid(uri: str) -> UsageError:
    return UsageError(
        f"-ic {uri}: not a libvirt URI",
        id="libvirt-uri",
        hint="for example qemu:///system, or qemu+ssh://USER@HOST/system",
    )


def _vmware(uri: str) -> UsageError:
    return UsageError(
        f"-ic {uri}: -i libvirt does not read from VMware",
        id="libvirt-vmware",
        hint="-ic vpx://USER@VCENTER, esx://root@ESXI or esx+ssh://root@ESXI, without "
        "-i libvirt; else export the VM as an OVA for -i ova, or copy its folder for -i vmx",
    )


def _transport(uri: str, transport: str, name: str) -> UsageError:
    how = f"connects with {transport}" if transport else "connects with tls"
    return UsageError(
        f"-ic {uri} {how}, through which disks cannot be read",
        id="libvirt-transport",
        hint=f"use ssh: qemu+ssh://{name or 'HOST'}/system; disks are then read over ssh as well",
    )
