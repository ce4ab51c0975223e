"""Serving images to an appliance as conversion gets them: writable, over NBD, source unharmed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from v2v import overlay
from v2v.endpoint import Endpoint
from v2v.run import Run
from v2v.types import DiskFormat, Nic, Source, SourceDisk

NIC = Nic(mac="52:54:00:12:34:56")


@contextmanager
def serve(images: Sequence[Path], run: Run) -> Iterator[list[Endpoint]]:
    """Throw-away overlays of raw images."""
    with ExitStack() as stack:
        endpoints = []
        for index, image in enumerate(images):
            throw_away = overlay.throw_away(image, DiskFormat.RAW, index, run)
            (path,) = stack.enter_context(throw_away)
            endpoints.append(stack.enter_context(overlay.serve_overlay(path, index, run)))
        yield endpoints


def source(images: Sequence[Path], controllers: Sequence[str | None] = ()) -> Source:
    known = [*controllers, *[None] * (len(images) - len(controllers))]
    disks = tuple(
        SourceDisk(str(image), DiskFormat.RAW, image.stat().st_size, controller)
        for image, controller in zip(images, known, strict=True)
    )
    return Source("vm", "disk", disks, nics=(NIC,))


def blank(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path
