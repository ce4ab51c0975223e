"""Opening a disk: its descriptor, its parts, its parents."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from v2v.errors import SourceError
from v2v.image import magic, vmdk
from v2v.image.formats import ExtentFile, Header
from v2v.image.reader import corrupt, truncated
from v2v.image.vmdk_text import FLAT_KINDS
from v2v.vmdk import sparse
from v2v.vmdk.flat import Flat
from v2v.vmdk.names import Names
from v2v.vmdk.pieces import NOWHERE, ZERO, Part, Piece
from v2v.vmdk.start import HEAD, Start
from v2v.vmdk.store import File
from v2v.vmdk.tables import Cache

MAX_CHAIN = 64  # disks behind one another; ESXi makes 32


@dataclass(frozen=True, slots=True)
class Layer:
    """One disk of a chain: its parts in order. What is behind its end is zeroes."""

    path: str
    size: int
    parts: tuple[Part, ...]
    files: tuple[tuple[str, File], ...]
    starts: tuple[int, ...]  # of the parts

    def pieces(self, start: int, end: int) -> Iterator[Piece]:
        at = bisect_right(self.starts, start) - 1
        while start < min(end, self.size):
            part = self.parts[at]
            stop = min(end, part.end)
            yield from part.pieces(start, stop)
            start, at = stop, at + 1
        if start < end:
            yield Piece(start, end, self.parts[-1], ZERO)


def pieces(layers: Sequence[Layer], start: int, end: int, level: int = 0) -> Iterator[Piece]:
    """A range of the disk; `layers` are the disk itself, its parent, and so on."""
    for piece in layers[level].pieces(start, end):
        if piece.place != NOWHERE:
            yield piece
        elif level + 1 < len(layers):
            yield from pieces(layers, piece.start, piece.end, level + 1)
        else:
            yield piece._replace(place=ZERO)


def open_chain(names: Names, path: str, cache: Cache) -> tuple[Layer, ...]:
    """The disk of the descriptor at `path`, and its parents."""
    real = names.store.real_path(path)
    file, child, layers = names.store.open(real), None, list[Layer]()
    while True:
        if len(layers) > MAX_CHAIN or real in [layer.path for layer in layers]:
            raise SourceError(
                f"{layers[0].files[0][1].name}: its chain of parents has no end",
                id="image-corrupt",
                hint="take the copy again from where it came",
            )
        header = _read_header(file)
        if child is not None:
            vmdk.check_chain(layers[-1].files[0][1].name, child.backing_cid, file.name, header)
        layers.append(_open_layer(names, real, file, header, cache))
        if header.backing is None:
            return tuple(layers)
        child = header
        real, file = names.parent(real, header.backing)


def _read_header(file: File) -> Header:
    start = Start(file)
    head = start.read(0, HEAD)
    if head.startswith(b"KDMV"):
        return vmdk.read_sparse(start, for_qemu=False)
    if head.startswith(vmdk.DESCRIPTOR_MAGIC):
        return vmdk.read_descriptor_file(start, for_qemu=False)
    other = magic.foreign(head)
    raise SourceError(
        f"{file.name} is not a vmdk image; it looks like {other.what if other else 'raw'}",
        id="image-format-wrong",
        hint=other.hint if other else magic.VMDK_TEXT,
    )


def _open_layer(names: Names, path: str, file: File, header: Header, cache: Cache) -> Layer:
    files, parts = [(path, file)], list[Part]()
    if not header.extents:
        parts.append(sparse.hosted(file, 0, None, cache))
    for number, extent in enumerate(header.extents, 1):
        if not extent.length:
            continue
        found, data = names.part(path, extent.name)
        start = parts[-1].end if parts else 0
        parts.append(_part(data, extent, start, cache, last=number == len(header.extents)))
        files.append((found, data))
    if not parts:
        raise corrupt(file, "a disk of 0 bytes")
    return Layer(
        path, parts[-1].end, tuple(parts), tuple(files), tuple(part.start for part in parts)
    )


def _part(file: File, extent: ExtentFile, start: int, cache: Cache, *, last: bool) -> Part:
    if extent.kind in FLAT_KINDS:
        if extent.offset + extent.length > file.size:
            raise truncated(file, "the extent", extent.offset + extent.length)
        return Flat(file, start, start + extent.length, extent.offset)
    made = KINDS[extent.kind](file, start, extent.length, cache)
    vmdk.check_holds(file, extent, made.layout.capacity, last=last)
    return made


KINDS = {"SPARSE": sparse.hosted, "VMFSSPARSE": sparse.cowd, "SESPARSE": sparse.sesparse}
