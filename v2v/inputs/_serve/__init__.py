"""Serving one source disk read-only over NBD, whatever it is: shared by inputs with disk files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from v2v import nbd_client, qemu_nbd
from v2v.address import scheme_of
from v2v.endpoint import Endpoint
from v2v.errors import SourceError
from v2v.image import lone_options, qemu_options, read_image, read_remote
from v2v.image.magic import SECTOR
from v2v.image.reader import FileReader, SliceReader
from v2v.inputs._details import (
    PACKED,
    UNSEEN,
    is_padded,
    is_plain,
    is_uri,
    shown,
    slice_of,
)
from v2v.inputs._reader.serve import serve_recipe
from v2v.inputs._serve.deltas import recipe_of
from v2v.inputs._serve.errors import explained
from v2v.inputs._serve.nbdkit_bytes import keeping, serve_by_nbdkit
from v2v.inputs._serve.qemu_bytes import SCHEMES as QEMU_SCHEMES
from v2v.inputs._serve.qemu_bytes import serve_by_qemu
from v2v.inputs._serve.unseen import check_seen
from v2v.process import ToolError
from v2v.qemu_nbd import ImageOptions
from v2v.run import Run
from v2v.types import DiskFormat, SourceDisk


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
    if recipe := recipe_of(disk, allowed, run):
        with serve_recipe(recipe, run, name) as endpoint:
            yield endpoint
        return
    with ExitStack() as stack:
        try:
            if _needs_bytes(disk):
                socket = stack.enter_context(_serve_bytes(disk, run, name, password_file))
                if disk.format != DiskFormat.RAW:
                    options = _checked_options(disk, socket, run, name)
                    name += f"-{disk.format}"
                    socket = stack.enter_context(qemu_nbd.serve(options, run=run, name=name))
                elif UNSEEN in disk.details:
                    check_seen(disk, socket, run)
            else:
                options = _file_options(disk, allowed)
                socket = stack.enter_context(qemu_nbd.serve(options, run=run, name=name))
            endpoint = nbd_client.describe(socket, cancel=run.cancel)
        except (ToolError, SourceError) as exc:
            raise explained(exc, disk, run, name) from exc
        yield replace(endpoint, file=_plain_file(disk))


def _plain_file(disk: SourceDisk) -> Path | None:
    """The local file or device whose bytes are those of the endpoint, where there is one."""
    if not is_plain(disk) or is_uri(disk.location) or is_padded(disk):
        return None
    return Path(disk.location)


def _needs_bytes(disk: SourceDisk) -> bool:
    plain = disk.format == DiskFormat.RAW
    return plain or is_uri(disk.location) or PACKED in disk.details or not _qemu_can_slice(disk)


def _qemu_can_slice(disk: SourceDisk) -> bool:
    """QEMU takes whole sectors, which must all be there; a file counts as filled up to one."""
    part = slice_of(disk)
    if part is None:
        return True
    with FileReader(Path(disk.location)) as file:
        return part.offset + _round_up(part.length) <= _round_up(file.size)


def _file_options(disk: SourceDisk, allowed: Sequence[Path]) -> ImageOptions:
    """How QEMU opens a local image, once its headers were read again by ourselves."""
    path = Path(disk.location)
    part = slice_of(disk)
    if part is None:
        return qemu_options(read_image(path, disk.format, allowed=allowed, unpack=False))
    with FileReader(path) as whole:
        reader = SliceReader(whole, part.offset, part.length, shown(disk))
        read_remote(reader, disk.format, unpack=False)
    file = {
        "driver": "raw",
        "offset": str(part.offset),
        "size": str(_round_up(part.length)),
        "file.driver": "host_device" if path.is_block_device() else "file",
        "file.filename": str(path),
    }
    return lone_options(disk.format, file)


def _round_up(size: int) -> int:
    return -(-size // SECTOR) * SECTOR


def _serve_bytes(
    disk: SourceDisk, run: Run, name: str, password_file: Path | None
) -> AbstractContextManager[Path]:
    """What is at the location, the image's part of it, unpacked."""
    by_qemu = scheme_of(disk.location) in QEMU_SCHEMES
    serve = serve_by_qemu if by_qemu else serve_by_nbdkit
    return serve(disk, run, name, password_file)


def _checked_options(disk: SourceDisk, socket: Path, run: Run, name: str) -> ImageOptions:
    """How QEMU opens an image that NAME serves, once we have read its headers ourselves."""
    endpoint = nbd_client.describe(socket, cancel=run.cancel)
    with keeping(run, name), nbd_client.ExportReader(endpoint, shown(disk)) as reader:
        read_remote(reader, disk.format, unpack=False)
    server = {"driver": "nbd", "server.type": "unix", "server.path": str(socket)}
    return lone_options(disk.format, server)
