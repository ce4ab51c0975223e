"""The address of a network disk of a libvirt domain, as a URI.

    nbd://HOST[:PORT]/EXPORT  nbds://...  nbd+unix:///EXPORT?socket=PATH
    http[s]://[USER@]HOST[:PORT]/PATH[?QUERY]
    ssh://[USER@]HOST[:PORT]/PATH
    iscsi://[USER@]HOST[:PORT]/TARGET/LUN
    rbd://[USER@][MONITOR[:PORT]]/POOL/IMAGE[@SNAPSHOT][?conf=PATH]

Names are percent-encoded. Passwords are never in it.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from v2v.errors import SourceError
from v2v.inputs._domain.disks import DiskHost, DomainDisk

MAX_PORT = 65535
HOST = re.compile(r"[\w:][\w.:%-]*")  # a name or an IP address; none is an option of ssh
QUERY = "=&%+-._~:@/?!$'()*,;"  # what may stand in a query as it is

MOUNT = "mount it on this host, and name the file as <source file='...'>"
DOWNLOAD = "download it first, and name the file as <source file='...'>"

# Protocols that v2v does not read, and what to do instead.
OTHER_PROTOCOLS = {
    "gluster": MOUNT,
    "nfs": MOUNT,
    "ftp": DOWNLOAD,
    "ftps": DOWNLOAD,
    "tftp": DOWNLOAD,
    "sheepdog": "export it with `qemu-nbd` of a QEMU that still has it, and name that",
    "vxhs": "export it with `qemu-nbd` of a QEMU that still has it, and name that",
}


def disk_uri(disk: DomainDisk) -> str:
    """Where a network disk is. SourceError for a protocol that v2v does not read."""
    if disk.protocol == "nbd":
        return _nbd(disk)
    if disk.protocol in ("http", "https"):
        return _http(disk)
    if disk.protocol == "ssh":
        return f"ssh://{_authority(disk)}{_path(disk)}"
    if disk.protocol == "iscsi":
        lun = "" if "/" in disk.name.strip("/") else "/0"
        return f"iscsi://{_authority(disk)}{_path(disk)}{lun}"
    if disk.protocol == "rbd":
        return _rbd(disk)
    raise SourceError(
        f"{disk.label} is behind {disk.protocol or 'no protocol'}, which v2v cannot read",
        id="domain-disk-kind",
        hint=OTHER_PROTOCOLS.get(disk.protocol, "copy it into a file, and name that"),
    )


def host_text(name: str, port: int | None) -> str:
    """host:port as a URI has it."""
    text = f"[{name}]" if ":" in name else quote(name, safe="")
    return text if port is None else f"{text}:{port}"


def _nbd(disk: DomainDisk) -> str:
    host = _first_host(disk, DiskHost("localhost"))
    scheme = "nbds" if disk.tls else "nbd"
    export = quote(disk.name.removeprefix("/"))
    if host.transport == "unix":
        if not host.socket.startswith("/"):
            raise _bad(disk, f"{host.socket!r} is not the absolute path of a socket")
        return f"{scheme}+unix:///{export}?socket={quote(host.socket)}"
    return f"{scheme}://{host_text(host.name or 'localhost', host.port)}/{export}"


def _http(disk: DomainDisk) -> str:
    if disk.cookies:
        raise SourceError(
            f"{disk.label} is behind a web server that wants cookies, which v2v does not send",
            id="domain-disk-cookies",
            hint=DOWNLOAD,
        )
    query = f"?{quote(disk.query, safe=QUERY)}" if disk.query else ""
    return f"{disk.protocol}://{_authority(disk)}{_path(disk)}{query}"


def _rbd(disk: DomainDisk) -> str:
    """The first monitor tells of the others; without one, Ceph's configuration here does."""
    host = _first_host(disk)
    monitor = host_text(host.name, host.port) if host.name else ""
    snapshot = disk.options.get("snapshot")
    name = _path(disk) + (f"@{quote(snapshot, safe='')}" if snapshot else "")
    config = disk.options.get("config")
    return f"rbd://{_user(disk)}{monitor}{name}" + (f"?conf={quote(config)}" if config else "")


def _authority(disk: DomainDisk) -> str:
    host = _first_host(disk)
    if not host.name or host.transport != "tcp":
        raise _bad(disk, "it names no server to connect to")
    return _user(disk) + host_text(host.name, host.port)


def _user(disk: DomainDisk) -> str:
    return f"{quote(disk.user, safe='@')}@" if disk.user else ""


def _path(disk: DomainDisk) -> str:
    if not disk.name.strip("/"):
        raise _bad(disk, "it does not say what to read from the server")
    return "/" + quote(disk.name.removeprefix("/"))


def _first_host(disk: DomainDisk, default: DiskHost | None = None) -> DiskHost:
    host = next(iter(disk.hosts), default or DiskHost())
    if host.port is not None and not 0 < host.port <= MAX_PORT:
        raise _bad(disk, f"{host.port} is no port")
    if host.name and not HOST.fullmatch(host.name):
        raise _bad(disk, f"{host.name!r} is not the name of a host")
    if host.transport not in ("tcp", "unix"):
        raise _bad(disk, f"v2v cannot connect over {host.transport}")
    return host


def _bad(disk: DomainDisk, why: str) -> SourceError:
    return SourceError(
        f"{disk.label} ({disk.protocol}) cannot be found: {why}",
        id="domain-disk-source",
        hint="correct its <source> in the XML",
    )
