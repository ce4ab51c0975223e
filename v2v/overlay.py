"""The writable overlay over a read-only disk.

A qcow2 file in the job's folder takes every write; the source is never written. The file outlives
the process: on resume it is opened again, over the source's new socket. The backing disk is named
when the file is opened and not inside it, because sockets do not outlive a run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from v2v import nbd_client, nbd_layers, qemu_img, qemu_nbd
from v2v.endpoint import Endpoint
from v2v.errors import JobError
from v2v.extents import Extent
from v2v.journal import sync_folder
from v2v.run import Run
from v2v.types import DiskFormat


def overlay_path(index: int, run: Run) -> Path:
    return run.folder / f"overlay-{index}.qcow2"


@contextmanager
def open_overlay(endpoint: Endpoint, index: int, run: Run) -> Iterator[Endpoint]:
    """Serve disk `index` writable, creating the overlay unless this job has it already.

    The server tells by `qemu:allocation-depth` what was written (1) and what still comes from
    the source (2). Trimmed ranges and written zeroes take no space.
    """
    path = overlay_path(index, run)
    if not path.exists():
        _create(path, endpoint.size)
    image = {**qemu_nbd.image_options(path, DiskFormat.QCOW2), **_backing(endpoint)}
    with _serve(image, f"overlay-{index}", run) as overlay:
        yield overlay


def own_extents(endpoint: Endpoint, index: int, run: Run) -> list[Extent]:
    """What was written to overlay `index` until now, as data or as zeroes; in whole clusters.

    The rest is as the source has it. The file is looked at without its backing disk, by a server
    of its own: see v2v.nbd_layers. While a guest is being converted the answer may be old.
    """
    nbd_client.flush(endpoint, cancel=run.cancel)  # QEMU keeps the newest of its tables in memory
    image = qemu_nbd.image_options(overlay_path(index, run), DiskFormat.QCOW2)
    image["force-share"] = "on"  # the server of `open_overlay` has the file locked
    name = f"layers-{index}"
    with qemu_nbd.serve(image, run=run, name=name, allocation_depth=True) as socket:
        alone = nbd_client.describe(socket, cancel=run.cancel)
        found = nbd_layers.layers(alone, cancel=run.cancel)
        return [Extent(one.offset, one.length, one.zero) for one in found if one.own]


def settle(endpoint: Endpoint, index: int, run: Run) -> None:
    """Make what was written to overlay `index` survive a crash of the processes and the host.

    With cache=unsafe QEMU answers a flush by writing its metadata to the operating system, and
    leaves the fsync to us.
    """
    nbd_client.flush(endpoint, cancel=run.cancel)
    _sync(overlay_path(index, run))


def check_overlays(count: int, run: Run) -> None:
    """Raise JobError unless the overlays that hold the finished conversion are there."""
    for index in range(count):
        path = overlay_path(index, run)
        if not path.exists():
            raise JobError(
                f"{path} is gone, which held what the conversion wrote",
                id="overlay-lost",
                hint=f"`v2v jobs discard {run.job_id}`, then start again",
            )


def discard_overlays(run: Run) -> None:
    """Remove what conversion wrote."""
    for path in run.folder.glob("overlay-*.qcow2*"):
        path.unlink(missing_ok=True)


@contextmanager
def throw_away(image: Path, format: DiskFormat, index: int, run: Run) -> Iterator[tuple[Path, ...]]:
    """A temporary qcow2 over a finished local image; it is removed at the end."""
    path = run.folder / f"throw-away-{index}.qcow2"
    path.unlink(missing_ok=True)
    size = qemu_img.virtual_size(image, format)
    try:
        qemu_img.create(path, DiskFormat.QCOW2, size, backing=(image, format))
        yield (path,)
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def serve_overlay(path: Path, index: int, run: Run) -> Iterator[Endpoint]:
    """Serve a throw-away overlay writable. Its backing image is the one `throw_away` named."""
    image = qemu_nbd.image_options(path, DiskFormat.QCOW2)
    with _serve(image, f"throw-away-{index}", run) as endpoint:
        yield endpoint


@contextmanager
def _serve(image: dict[str, str], name: str, run: Run) -> Iterator[Endpoint]:
    with qemu_nbd.serve(
        image,
        run=run,
        name=name,
        read_only=False,
        allocation_depth=True,
        discard=True,
        cache="unsafe",
    ) as socket:
        yield nbd_client.describe(socket, read_only=False)


def _create(path: Path, size: int) -> None:
    """Under another name first, so that a crash leaves no half-made overlay to be reopened."""
    working = path.with_suffix(".qcow2.new")
    working.unlink(missing_ok=True)
    qemu_img.create(working, DiskFormat.QCOW2, size)
    _sync(working)
    working.rename(path)
    sync_folder(path.parent)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _backing(endpoint: Endpoint) -> dict[str, str]:
    """The --image-opts keys that put an NBD endpoint under an overlay."""
    assert endpoint.socket is not None  # noqa: S101  inputs serve on Unix sockets
    backing = {
        "backing.driver": "raw",
        "backing.file.driver": "nbd",
        "backing.file.server.type": "unix",
        "backing.file.server.path": str(endpoint.socket),
    }
    if endpoint.export:
        backing["backing.file.export"] = endpoint.export
    return backing
