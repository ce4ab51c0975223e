"""The address of a network disk of a libvirt domain, as a URI.

    nbd://HOST[:PORT]/EXPORT  nbds://...  nbd+unix:///EXPORT?socket=PATH
    http[s]://[USER@]HOST[:PORT]/PATH[?QUERY]
    ssh://[USER@]HOST[:PORT]/PATH
    iscsi://[USER@]HOST[:PORT]/TARGET/LUN
    rbd://[USER@][MONITOR[:PORT]]/POOL/IMAGE[@SNAPSHOT][?conf=PATH]

Names are percent-encoded. Passwords are never in it.
"""

from __future__ import annotations

from urllib.parse import quote

from v2v.address import MAX_PORT, Address, is_host
from v2v.errors import SourceError
from v2v.inputs._domain.disks import DiskHost, DomainDisk

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
        return _on_server(disk, _path(disk))
    if disk.protocol == "iscsi":
        return _on_server(disk, _path(disk) + ("" if "/" in disk.name.strip("/") else "/0"))
    if disk.protocol == "rbd":
        return _rbd(disk)
    raise SourceError(
        f"{disk.label} is behind {disk.protocol or 'no protocol'}, which v2v cannot read",
        id="domain-disk-kind",
        hint=OTHER_PROTOCOLS.get(disk.protocol, "copy it into a file, and name that"),
    )


def _nbd(disk: DomainDisk) -> str:
    host = _first_host(disk, DiskHost("localhost"))
    scheme = "nbds" if disk.tls else "nbd"
    path = "/" + disk.name.removeprefix("/")
    if host.transport == "unix":
        if not host.socket.startswith("/"):
            raise _bad(disk, f"{host.socket!r} is not the absolute path of a socket")
        return Address(f"{scheme}+unix", path=path, query={"socket": host.socket}).write()
    return Address(scheme, host.name or "localhost", host.port, path=path).write()


def _http(disk: DomainDisk) -> str:
    if disk.cookies:
        raise SourceError(
            f"{disk.label} is behind a web server that wants cookies, which v2v does not send",
            id="domain-disk-cookies",
            hint=DOWNLOAD,
        )
    query = f"?{quote(disk.query, safe=QUERY)}" if disk.query else ""
    return _on_server(disk, _path(disk)) + query


def _rbd(disk: DomainDisk) -> str:
    """The first monitor tells of the others; without one, Ceph's configuration here does."""
    host = _first_host(disk)
    port = host.port if host.name else None
    snapshot, config = disk.options.get("snapshot"), disk.options.get("config")
    path = _path(disk) + (f"@{snapshot}" if snapshot else "")
    query = {"conf": config} if config else {}
    return Address("rbd", host.name, port, disk.user, path, query).write()


def _on_server(disk: DomainDisk, path: str) -> str:
    host = _first_host(disk)
    if not host.name or host.transport != "tcp":
        raise _bad(disk, "it names no server to connect to")
    return Address(disk.protocol, host.name, host.port, disk.user, path).write()


def _path(disk: DomainDisk) -> str:
    if not disk.name.strip("/"):
        raise _bad(disk, "it does not say what to read from the server")
    return "/" + disk.name.removeprefix("/")


def _first_host(disk: DomainDisk, default: DiskHost | None = None) -> DiskHost:
    host = next(iter(disk.hosts), default or DiskHost())
    if host.port is not None and not 0 < host.port <= MAX_PORT:
        raise _bad(disk, f"{host.port} is no port")
    if host.name and not is_host(host.name):
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
