"""Serving one source disk read-only over NBD, whatever it is: shared by inputs with disk files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from v2v import nbd_client, nbdkit, process, qemu_nbd
from v2v.endpoint import Endpoint
from v2v.errors import SourceError, V2VError
from v2v.image import format_options, qemu_options, read_image, read_remote
from v2v.image.magic import SECTOR
from v2v.image.reader import FileReader, SliceReader
from v2v.inputs._details import (
    LENGTH,
    MEMBER,
    MODIFIED,
    OFFSET,
    ONE_CONNECTION,
    PACKED,
    is_plain,
    is_uri,
    shown,
    slice_of,
)
from v2v.inputs._http import split_user
from v2v.process import ToolError
from v2v.run import Run
from v2v.types import DiskFormat, SourceDisk

__all__ = [
    "LENGTH",
    "MEMBER",
    "MODIFIED",
    "OFFSET",
    "ONE_CONNECTION",
    "PACKED",
    "is_uri",
    "serve_disk",
]

# What an NBD address calls it, and nbdkit's nbd plugin.
TLS_FILES = {"tls-psk-file": "tls-psk", "tls-certificates": "tls-certificates"}


@contextmanager
def serve_disk(
    disk: SourceDisk,
    index: int,
    run: Run,
    *,
    allowed: Sequence[Path] = (),
    password_file: Path | None = None,
) -> Iterator[Endpoint]:
    """Serve a local file, a block device or a URI. The format inside is `disk.format`.

    `disk.details`: see v2v.inputs._details. Sizes are multiples of 512: a raw disk that is not is
    padded with zeroes. `allowed`: see v2v.image.read_image.
    """
    name = f"source-{index}"
    with ExitStack() as stack:
        try:
            if _needs_nbdkit(disk):
                socket = stack.enter_context(_serve_bytes(disk, run, name, password_file))
                if disk.format != DiskFormat.RAW:
                    options = _checked_options(disk, socket, run)
                    name += f"-{disk.format}"
                    socket = stack.enter_context(qemu_nbd.serve(options, run=run, name=name))
            else:
                options = _file_options(disk, allowed)
                socket = stack.enter_context(qemu_nbd.serve(options, run=run, name=name))
            endpoint = nbd_client.describe(socket, cancel=run.cancel)
        except (ToolError, SourceError) as exc:
            raise _explained(exc, disk, run, name) from exc
        yield replace(endpoint, file=_plain_file(disk))


def _plain_file(disk: SourceDisk) -> Path | None:
    """The local file or device whose bytes are those of the endpoint, where there is one."""
    if not is_plain(disk) or is_uri(disk.location) or _is_padded(disk):
        return None
    return Path(disk.location)


def _is_padded(disk: SourceDisk) -> bool:
    raw = disk.format == DiskFormat.RAW
    return raw and (disk.size is None or disk.size % SECTOR != 0)


def _needs_nbdkit(disk: SourceDisk) -> bool:
    plain = disk.format == DiskFormat.RAW
    return plain or is_uri(disk.location) or PACKED in disk.details or not _qemu_can_slice(disk)


def _qemu_can_slice(disk: SourceDisk) -> bool:
    """QEMU takes whole sectors, which must all be there; a file counts as filled up to one."""
    part = slice_of(disk)
    if part is None:
        return True
    with FileReader(Path(disk.location)) as file:
        return part.offset + _round_up(part.length) <= _round_up(file.size)


def _file_options(disk: SourceDisk, allowed: Sequence[Path]) -> dict[str, str]:
    """How QEMU opens a local image, once its headers were read again by ourselves."""
    path = Path(disk.location)
    part = slice_of(disk)
    if part is None:
        return qemu_options(read_image(path, disk.format, allowed=allowed))
    with FileReader(path) as file:
        read_remote(SliceReader(file, part.offset, part.length, shown(disk)), disk.format)
    return {
        "driver": str(disk.format),
        "file.driver": "raw",
        "file.offset": str(part.offset),
        "file.size": str(_round_up(part.length)),
        "file.file.driver": "host_device" if path.is_block_device() else "file",
        "file.file.filename": str(path),
        **format_options(disk.format),
    }


def _round_up(size: int) -> int:
    return -(-size // SECTOR) * SECTOR


@contextmanager
def _serve_bytes(
    disk: SourceDisk, run: Run, name: str, password_file: Path | None
) -> Iterator[Path]:
    """The disk's bytes, unpacked, by nbdkit."""
    plugin, params, filters = _plugin(disk, password_file)
    if part := slice_of(disk):
        filters = ["offset", *filters]
        params = [*params, f"offset={part.offset}", f"range={part.length}"]
    if packed := disk.details.get(PACKED):
        filters = [packed, *filters]
    if _is_padded(disk):
        filters = ["truncate", *filters]
        params = [*params, f"round-up={SECTOR}"]
    with nbdkit.serve(plugin, params, run=run, name=name, filters=filters) as socket:
        yield socket


def _plugin(disk: SourceDisk, password_file: Path | None) -> tuple[str, list[str], list[str]]:
    """nbdkit's plugin, its parameters and the filters that go with it."""
    location = disk.location
    if not is_uri(location):
        return "file", [f"file={location}"], []
    if location.startswith("nbd"):
        shared = ["shared=true"] if ONE_CONNECTION in disk.details else []
        return "nbd", [*_nbd_params(location), *shared], []
    url, user = split_user(location)
    params = [f"url={url}", "protocols=http,https"]
    if user is not None:
        params.append(f"user={user}")
    if password_file is not None:
        params.append(f"password=+{password_file}")
    return "curl", params, ["retry"]


def _nbd_params(uri: str) -> list[str]:
    """nbdkit's plugin takes files of TLS as parameters, and not in the address."""
    parts = urlsplit(uri)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    files = {new: query.pop(old) for old, new in TLS_FILES.items() if old in query}
    if not files:
        return [f"uri={uri}"]
    plain = urlunsplit(parts._replace(query=urlencode(query, safe="/")))
    return [f"uri={plain}", *(f"{key}={value}" for key, value in files.items())]


def _checked_options(disk: SourceDisk, socket: Path, run: Run) -> dict[str, str]:
    """How QEMU opens an image that nbdkit serves, once we have read its headers ourselves."""
    endpoint = nbd_client.describe(socket, cancel=run.cancel)
    with nbd_client.ExportReader(endpoint, shown(disk)) as reader:
        read_remote(reader, disk.format)
    return {
        "driver": str(disk.format),
        "file.driver": "nbd",
        "file.server.type": "unix",
        "file.server.path": str(socket),
        **format_options(disk.format),
    }


def _explained(exc: V2VError, disk: SourceDisk, run: Run, name: str) -> V2VError:
    """What the server said last is the cause; a client only sees that the connection ended."""
    if exc.id not in ("server-ended", "server-timeout", "nbd-unreachable", "nbd-lost"):
        return exc
    log = run.folder / "log" / f"{name}.log"
    words = process.last_line(process.log_text(log)) or exc.message
    hint = None
    if "xz" in words and "block" in words:
        hint = "unpack it first: `xz -d`; or pack it again with `xz --block-size=16MiB`"
    return SourceError(
        f"{shown(disk)} cannot be served: {words}",
        id="source-serve",
        hint=hint or f"the server's log is {log}",
    )
