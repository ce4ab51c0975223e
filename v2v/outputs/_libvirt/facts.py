"""What a libvirt host has: pools, their volumes, networks. Asked for once, and kept as values."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from v2v.errors import TargetError
from v2v.libvirt_connection import LibvirtHost, ask
from v2v.options import did_you_mean
from v2v.outputs._libvirt.answers import parse_xml
from v2v.outputs._libvirt.connection import DRIVERS, is_local, other_driver
from v2v.run import Run
from v2v.texts import some

FOLDERS = ("dir", "fs", "netfs")
LOGICAL = "logical"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pool:
    name: str
    type: str  # one of FOLDERS, or LOGICAL
    path: str  # the folder of its volumes: /srv/images, /dev/vg
    free: int  # bytes
    volumes: Mapping[str, int]  # names, and bytes: see volume_length


@dataclass(frozen=True, slots=True)
class Facts:
    uri: str  # as libvirt completed it
    pools: Mapping[str, Pool]  # by the words they were asked for with: name or UUID
    domain: str | None  # UUID of the domain that has the guest's name
    networks: Mapping[str, bool] | None  # whether each is active; None: it has no such thing
    bridges: Collection[str] | None  # None: nobody can tell

    @property
    def local(self) -> bool:
        return is_local(self.uri)


def look(host: LibvirtHost, pools: Iterable[str], name: str, run: Run) -> Facts:
    """TargetError for pools that are not there, inactive, or of a type that takes no disks."""
    wanted = sorted(set(pools))

    def answer(libvirt: Any, connection: Any) -> Facts:
        if connection.getType() not in DRIVERS:
            raise other_driver(host.shown, connection.getType())
        # The longest answer that there will be: libssh of libvirt 9.0 hangs on it. Better now than
        # when all is converted.
        connection.getCapabilities()
        uri = connection.getURI()
        return Facts(
            uri=uri,
            pools={one: _pool(libvirt, connection, one) for one in wanted},
            domain=_domain(libvirt, connection, name),
            networks=_networks(libvirt, connection),
            bridges=_bridges(libvirt, connection, local=is_local(uri)),
        )

    return ask(host, answer, run)


def find_pool(libvirt: Any, connection: Any, name: str) -> Any:
    """The active pool of that name or UUID, libvirt's own object."""
    for lookup in (connection.storagePoolLookupByName, connection.storagePoolLookupByUUIDString):
        try:
            pool = lookup(name)
            break
        except libvirt.libvirtError as exc:
            if exc.get_error_code() not in (
                libvirt.VIR_ERR_NO_STORAGE_POOL,
                libvirt.VIR_ERR_INVALID_ARG,  # it is no UUID
            ):
                raise
    else:
        raise _unknown(name, [pool.name() for pool in connection.listAllStoragePools()])
    if not pool.isActive():
        raise TargetError(
            f"-os {name}: this storage pool is not active",
            id="target-storage",
            hint=f"`virsh pool-start --pool {quote(name)}` starts it",
        )
    return pool


def refresh(libvirt: Any, pool: Any) -> None:
    """Have libvirt look at what is in the pool now, unless it is at work there."""
    try:
        pool.refresh(0)
    except libvirt.libvirtError as exc:
        if exc.get_error_code() != libvirt.VIR_ERR_INTERNAL_ERROR:
            raise
        log.info("%s: %s", pool.name(), exc)  # a volume is being made, by somebody else


def volume_length(libvirt: Any, volume: Any) -> int:
    """Bytes of the volume itself, not of the disk that libvirt takes its content for."""
    try:
        return int(volume.infoFlags(libvirt.VIR_STORAGE_VOL_GET_PHYSICAL)[2])
    except libvirt.libvirtError as exc:
        if exc.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise
    return int(volume.info()[1])  # libvirt's driver for tests, and libvirt before 3.0


def _pool(libvirt: Any, connection: Any, name: str) -> Pool:
    pool = find_pool(libvirt, connection, name)
    root = parse_xml(pool.XMLDesc(0), "a storage pool")
    kind = root.get("type") or ""
    if kind not in (*FOLDERS, LOGICAL):
        raise TargetError(
            f"-os {name}: a storage pool of type {kind}, in which no volumes of a guest's name "
            "can be made and filled",
            id="target-storage",
            hint=f"take a pool of one of the types {', '.join(FOLDERS)} or {LOGICAL}; for a block "
            "device of this host use -o block",
        )
    refresh(libvirt, pool)
    volumes = {one.name(): volume_length(libvirt, one) for one in pool.listAllVolumes()}
    path = root.findtext("target/path") or ""
    return Pool(pool.name(), kind, path, int(pool.info()[3]), volumes)


def _domain(libvirt: Any, connection: Any, name: str) -> str | None:
    try:
        return str(connection.lookupByName(name).UUIDString())
    except libvirt.libvirtError as exc:
        if exc.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise
        return None


def _networks(libvirt: Any, connection: Any) -> dict[str, bool] | None:
    try:
        found = connection.listAllNetworks()
    except libvirt.libvirtError as exc:
        if exc.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise
        return None  # such as a host without libvirt's network driver
    return {network.name(): bool(network.isActive()) for network in found}


def _bridges(libvirt: Any, connection: Any, *, local: bool) -> frozenset[str] | None:
    if local:
        return frozenset(path.parent.name for path in Path("/sys/class/net").glob("*/bridge"))
    try:
        found = connection.listAllInterfaces()
    except libvirt.libvirtError as exc:
        log.info("interfaces: %s", exc)  # a driver that few hosts have
        return None
    return frozenset(one.name() for one in found) or None


def _unknown(name: str, names: list[str]) -> TargetError:
    known = sorted(names)
    there = f"there are: {some(known)}" if known else "there is none"
    return TargetError(
        f"-os {name}: there is no such storage pool",
        id="target-storage",
        hint=did_you_mean(name, known) or there,
    )
