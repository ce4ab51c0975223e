"""Extents of Workstation (hosted sparse), ESX (COWD) and ESXi (seSparse) as parts of a disk."""

from __future__ import annotations

from array import array
from functools import partial

from v2v.image import vmdk_sesparse, vmdk_sparse
from v2v.image.formats import SECTOR
from v2v.image.reader import Reader, corrupt, unsupported
from v2v.image.vmdk_sparse import COMPRESSED, Sparse
from v2v.vmdk.packed import MAX_GRAIN, Packed, packed_runs
from v2v.vmdk.runs import sector_runs, sesparse_runs
from v2v.vmdk.start import Start
from v2v.vmdk.store import File
from v2v.vmdk.tables import Cache, Layout, Tables

ZEROES = 1 << 2  # flag: 1 in a table is a grain of zeroes
MARKERS = 1 << 17  # flag: before each packed grain is where it belongs


def hosted(file: File, start: int, length: int | None, cache: Cache) -> Tables:
    """`length`: None takes what the header says that there is."""
    begin = Start(file)
    head = vmdk_sparse.read_hosted(begin)
    layout = vmdk_sparse.hosted_layout(head)
    _check_packed(begin, head)
    packed, zero = layout.packed, bool(head.flags & ZEROES)
    if not packed:
        vmdk_sparse.check_redundant(file, head, layout)
    found = _by_sectors(begin, layout, zero=zero)
    end = start + (found.capacity if length is None else length)
    if packed:
        return Packed(file, start, end, found, cache)
    return Tables(file, start, end, found, cache)


def cowd(file: File, start: int, length: int, cache: Cache) -> Tables:
    begin = Start(file)
    layout = _by_sectors(begin, vmdk_sparse.read_cowd(begin), zero=False)
    return Tables(file, start, start + length, layout, cache)


def sesparse(file: File, start: int, length: int, cache: Cache) -> Tables:
    begin = Start(file)
    head = vmdk_sesparse.read_sesparse(begin)
    layout = Layout(
        vmdk_sesparse.read_directory(begin, head),
        vmdk_sesparse.TABLE_BYTES,
        vmdk_sesparse.ENTRIES,
        vmdk_sesparse.GRAIN_BYTES,
        head.capacity * SECTOR,
        partial(sesparse_runs, grains=head.grains * SECTOR),
    )
    return Tables(file, start, start + length, layout, cache)


def _by_sectors(file: Reader, layout: vmdk_sparse.Layout, *, zero: bool) -> Layout:
    directory = vmdk_sparse.read_directory(file, layout)
    decode = packed_runs if layout.packed else sector_runs
    return Layout(
        array("Q", (sector * SECTOR for sector in directory)),
        layout.entries * 4,
        layout.entries,
        layout.grain * SECTOR,
        layout.capacity * SECTOR,
        partial(decode, grain=layout.grain, zero=zero),
    )


def _check_packed(file: Reader, head: Sparse) -> None:
    """The flag says that grains are packed; a field of its own with what, 1 for deflate."""
    algorithm = int.from_bytes(file.read(77, 2), "little")
    packed = bool(head.flags & COMPRESSED)
    if packed != bool(algorithm):
        raise corrupt(file, "the VMDK header contradicts itself in whether it is compressed")
    if packed and (algorithm != 1 or not head.flags & MARKERS):
        raise unsupported(file, "a compression that is not known", "export the disk again")
    if packed and head.grain * SECTOR > MAX_GRAIN:
        raise unsupported(
            file, f"compressed grains of {head.grain} sectors", "export the disk again"
        )
