"""The bytes of a disk by nbdkit: which plugin, which parameters, which filters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from v2v import address, nbd_client, nbdkit
from v2v.address import NBD_SCHEMES, scheme_of
from v2v.image.magic import SECTOR
from v2v.inputs._details import (
    IDENTITY,
    KNOWN_HOSTS,
    ONE_CONNECTION,
    PACKED,
    is_padded,
    is_uri,
    slice_of,
)
from v2v.inputs._serve.addresses import SSH, parse
from v2v.inputs._serve.http import split_user
from v2v.run import Run
from v2v.types import DiskFormat, SourceDisk

# What an NBD address calls it, and nbdkit's nbd plugin.
TLS_FILES = {"tls-psk-file": "tls-psk", "tls-certificates": "tls-certificates"}

Plugin = tuple[str, list[str], list[str]]  # its name, its parameters, the filters that go with it


@contextmanager
def serve_by_nbdkit(
    disk: SourceDisk, run: Run, name: str, password_file: Path | None
) -> Iterator[Path]:
    """The disk's bytes, its own part of them, unpacked, filled up to whole sectors.

    Of an image, what is read within `keeping` stays as it was read.
    """
    plugin, params, filters = _plugin(disk, password_file)
    if part := slice_of(disk):
        filters = ["offset", *filters]
        params = [*params, f"offset={part.offset}", f"range={part.length}"]
    if packed := disk.details.get(PACKED):
        filters = [packed, *filters]
    if is_padded(disk):
        filters = ["truncate", *filters]
        params = [*params, f"round-up={SECTOR}"]
    if disk.format != DiskFormat.RAW:
        filters = ["cow", *filters]
        params = [*params, f"cow-on-read={_mark(run, name)}"]
    with nbdkit.serve(plugin, params, run=run, name=name, filters=filters) as socket:
        yield socket


@contextmanager
def keeping(run: Run, name: str) -> Iterator[None]:
    """The headers that we check are those that QEMU reads, whatever the server says the next time:
    it might name files of this host in them."""
    mark = _mark(run, name)
    mark.touch()
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


def _mark(run: Run, name: str) -> Path:
    """While this file is there, nbdkit's cow filter keeps all that is read."""
    return run.folder.absolute() / f"{name}.keep"


def _plugin(disk: SourceDisk, password_file: Path | None) -> Plugin:
    location = disk.location
    if not is_uri(location):
        return "file", [f"file={location}"], []
    if scheme_of(location) in NBD_SCHEMES:
        shared = ["shared=true"] if ONE_CONNECTION in disk.details else []
        return "nbd", [*_nbd_params(location), *shared], []
    if scheme_of(location) == SSH:
        return "ssh", _ssh_params(disk, password_file), ["retry"]
    return "curl", _curl_params(location, password_file), ["retry"]


def _nbd_params(uri: str) -> list[str]:
    """nbdkit's plugin takes files of TLS as parameters, and not in the address."""
    nbd_client.check_trusted(uri)
    found = address.parse(uri)
    files = {new: found.query[old] for old, new in TLS_FILES.items() if old in found.query}
    plain = found.without(TLS_FILES).write()
    return [f"uri={plain}", *(f"{key}={value}" for key, value in files.items())]


def _curl_params(location: str, password_file: Path | None) -> list[str]:
    url, user = split_user(location)
    params = [f"url={url}", "protocols=http,https"]
    if user is not None:
        params.append(f"user={user}")
    if password_file is not None:
        params.append(f"password=+{password_file}")
    return params


def _ssh_params(disk: SourceDisk, password_file: Path | None) -> list[str]:
    """Hosts must be known: their keys are never taken on trust."""
    there = parse(disk.location)
    params = [f"host={there.host}", f"path={there.path}", "verify-remote-host=true"]
    if there.port is not None:
        params.append(f"port={there.port}")
    if there.user is not None:
        params.append(f"user={there.user}")
    for key in (KNOWN_HOSTS, IDENTITY):
        if file := disk.details.get(key):
            params.append(f"{key}={file.replace('%', '%%')}")  # libssh expands %d and the like
    if password_file is not None:
        params.append(f"password=+{password_file}")
    return params
