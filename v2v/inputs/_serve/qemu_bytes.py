"""Disks that QEMU's own drivers reach, and nbdkit does not: iSCSI and Ceph's RBD."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from v2v import qemu_nbd
from v2v.address import Address
from v2v.errors import UsageError
from v2v.image.magic import SECTOR
from v2v.inputs._details import shown, slice_of
from v2v.inputs._serve.addresses import ISCSI, RBD, invalid, parse
from v2v.password import password_as_file, read_password
from v2v.run import Run
from v2v.types import SourceDisk

SCHEMES = (ISCSI, RBD)
SECRET = "password"  # noqa: S105  QEMU's id of the object
ISCSI_PORT, MONITOR_PORT = 3260, 6789


@contextmanager
def serve_by_qemu(
    disk: SourceDisk, run: Run, name: str, password_file: Path | None
) -> Iterator[Path]:
    """The bytes at an iscsi:// or rbd:// address."""
    options = {"driver": "raw", **_slice_options(disk)}
    options |= driver_options(disk.location, secret=password_file is not None, prefix="file.")
    if password_file is None:
        with qemu_nbd.serve(options, run=run, name=name) as socket:
            yield socket
        return
    with (
        password_as_file(read_password(password_file)) as secret,
        qemu_nbd.serve(options, run=run, name=name, secrets={SECRET: secret}) as socket,
    ):
        yield socket


def driver_options(uri: str, *, secret: bool, prefix: str = "") -> dict[str, str]:
    """QEMU's keys for the address. `secret`: the password is the object SECRET."""
    address = parse(uri)
    makers: dict[str, Callable[[Address, bool], dict[str, str]]] = {ISCSI: _iscsi, RBD: _rbd}
    try:
        options = makers[address.scheme](address, secret)
    except ValueError as exc:
        raise invalid(uri) from exc
    return {f"{prefix}{key}": value for key, value in options.items()}


def _iscsi(address: Address, secret: bool) -> dict[str, str]:
    target, lun = _words(address)
    if not (target and lun.isdecimal()):
        raise ValueError(lun)
    options = {
        "driver": "iscsi",
        "transport": "tcp",
        "portal": _host_and_port(address, ISCSI_PORT),
        "target": target,
        "lun": str(int(lun)),
    }
    if address.user:
        options["user"] = address.user
        if secret:
            options["password-secret"] = SECRET
    return options


def _rbd(address: Address, secret: bool) -> dict[str, str]:
    pool, *namespace, image = _words(address)
    image, _, snapshot = image.partition("@")
    if not (pool and image) or len(namespace) > 1:
        raise ValueError(address.path)
    options = {"driver": "rbd", "pool": pool, "image": image}
    if namespace:
        options["namespace"] = namespace[0]
    if snapshot:
        options["snapshot"] = snapshot
    if address.host:
        options["server.0.host"] = address.host
        options["server.0.port"] = str(address.port or MONITOR_PORT)
    if address.user:
        options["user"] = address.user
    if secret:
        options["key-secret"] = SECRET
    if conf := address.query.get("conf"):
        options["conf"] = conf
    return options


def _words(address: Address) -> list[str]:
    """What is between the slashes of the path."""
    return address.path[1:].split("/")


def _host_and_port(address: Address, default: int) -> str:
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{address.port or default}"


def _slice_options(disk: SourceDisk) -> dict[str, str]:
    part = slice_of(disk)
    if part is None:
        return {}
    if part.offset % SECTOR or part.length % SECTOR:
        raise UsageError(
            f"{shown(disk)}: a part that is no whole number of sectors of {SECTOR} bytes",
            id="slice-unaligned",
            hint="copy the whole into a file first, and read that",
        )
    return {"offset": str(part.offset), "size": str(part.length)}
