"""Where the volumes of libvirt's storage pools are: https://libvirt.org/formatstorage.html."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING, Any

from v2v.errors import SourceError, V2VError
from v2v.inputs._domain.disks import DiskHost, DomainDisk
from v2v.inputs._xml import attribute, find_text, number, parse_xml

if TYPE_CHECKING:
    from v2v.inputs._xml import Element

# What a volume's XML says of its content when that is no format of disk images.
NO_FORMATS = ("none", "unknown", "auto")
KINDS = ("file", "block", "dir")
# Type of pool: the protocol that its volumes are reached by, instead of by a path.
PROTOCOLS = {"rbd": "rbd", "gluster": "gluster", "iscsi-direct": "iscsi", "sheepdog": "sheepdog"}

Place = DomainDisk | V2VError  # an error is raised when the disk is wanted


def find_volume(connection: Any, pool_name: str, name: str) -> Place:
    """Look it up; called with libvirt's connection, from which values are made here."""
    import libvirt

    try:
        pool = connection.storagePoolLookupByName(pool_name)
        if not pool.isActive():
            return _inactive(pool_name)
        volume = pool.storageVolLookupByName(name)
        return volume_disk(pool.XMLDesc(0), volume.XMLDesc(0), volume.path())
    except libvirt.libvirtError as exc:
        return _unknown(pool_name, name, str(exc))


def volume_disk(pool_xml: str, volume_xml: str, path: str) -> DomainDisk:
    """The disk that a volume is, by path or, where its pool has no paths, by network."""
    pool = parse_xml(pool_xml.encode(), "the XML of a storage pool")
    volume = parse_xml(volume_xml.encode(), "the XML of a volume")
    driver = attribute(volume, "target/format", "type") or ""
    driver = "" if driver in NO_FORMATS else driver
    if protocol := PROTOCOLS.get(pool.get("type") or ""):
        name = find_text(volume, "name") or ""
        return _network_disk(pool, protocol, name, driver)
    kind = volume.get("type") or "file"
    return DomainDisk(kind=kind if kind in KINDS else "file", path=path, driver=driver)


def _network_disk(pool: Element, protocol: str, volume: str, driver: str) -> DomainDisk:
    whole = find_text(pool, "source/name") or ""
    if protocol == "iscsi":  # volumes are called unit:0:0:LUN
        whole = attribute(pool, "source/device", "path") or ""
        volume = volume.rpartition(":")[2]
    hosts = pool.findall("source/host")
    return DomainDisk(
        kind="network",
        protocol=protocol,
        name=f"{whole}/{volume}",
        hosts=tuple(DiskHost(host.get("name") or "", number(host.get("port"))) for host in hosts),
        user=attribute(pool, "source/auth", "username") or "",
        driver=driver,
    )


def _inactive(pool: str) -> SourceError:
    return SourceError(
        f"the storage pool {pool}, which a disk lies in, is not active",
        id="libvirt-pool-inactive",
        hint=f"`virsh pool-start --pool {quote(pool)}` starts it",
    )


def _unknown(pool: str, volume: str, cause: str) -> SourceError:
    return SourceError(
        f"the volume {volume} of the storage pool {pool}, which a disk is, is not found: {cause}",
        id="libvirt-volume-unknown",
        hint=f"`virsh vol-list --pool {quote(pool)}` lists them; "
        f"`virsh pool-refresh --pool {quote(pool)}` makes libvirt look again",
    )
