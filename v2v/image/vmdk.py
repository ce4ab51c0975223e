"""VMDK: sparse extents and text descriptors, read by ourselves.

QEMU's driver reads descriptors loosely (it looks for words anywhere in the text) and opens the
files they name. So ours is strict: what is not understood, or could be understood in two ways, is
refused. Layout: VMware's "Virtual Disk Format 5.0" technical note. See vmdk_text for the
descriptor, vmdk_sparse and vmdk_sesparse for where the data is.
"""

from __future__ import annotations

from v2v.errors import SourceError
from v2v.image.formats import MAX_SIZE, SECTOR, ExtentFile, Header
from v2v.image.reader import Reader, corrupt, exactly, truncated, unsupported
from v2v.image.vmdk_sesparse import check_sesparse
from v2v.image.vmdk_sparse import (
    MAX_DESCRIPTOR,
    Sparse,
    check_cowd,
    check_hosted,
    read_hosted,
)
from v2v.image.vmdk_text import (
    DESCRIPTOR_MAGIC,
    FLAT_KINDS,
    Descriptor,
    parse_descriptor,
    raw_device,
)
from v2v.types import DiskFormat

__all__ = [
    "DESCRIPTOR_MAGIC",
    "check_chain",
    "check_extent",
    "check_holds",
    "read_descriptor_file",
    "read_sparse",
]

# createType: the kind of its extents, where only one makes sense
SNAPSHOT_TYPES = {"vmfsSparse": "VMFSSPARSE", "seSparse": "SESPARSE"}
SPLIT_TYPES = (
    *("monolithicFlat", "vmfs", "twoGbMaxExtentFlat", "twoGbMaxExtentSparse"),
    *SNAPSHOT_TYPES,
)
SPARSE_TYPES = ("monolithicSparse", "streamOptimized")
DEVICE_TYPES = ("fullDevice", "partitionedDevice")
CHAIN_HINT = (
    "a disk with snapshots only goes with the very parents it was made of, unchanged: copy the "
    "VM's whole folder again while the VM is shut down"
)


def read_sparse(reader: Reader, *, for_qemu: bool = True) -> Header:
    """An image that holds both its data and its descriptor.

    `for_qemu`: QEMU will read it too, so what it would take otherwise is refused, and where the
    data is has been looked at.
    """
    head = check_hosted(reader) if for_qemu else read_hosted(reader)
    text = reader.read(SECTOR, _descriptor_length(head)).split(b"\0")[0]
    if head.descriptor == 0 or not text:
        raise unsupported(
            reader,
            "it is one part of a split VMDK",
            "give the small .vmdk file that lists the parts",
        )
    if head.descriptor != 1:  # QEMU looks there, whatever the header says
        raise corrupt(reader, f"the VMDK descriptor is at sector {head.descriptor}, not 1")
    if len(text) > head.descriptor_length * SECTOR:
        raise corrupt(reader, "the VMDK descriptor is longer than the header says")
    found = parse_descriptor(reader, text, for_qemu=for_qemu)
    if found.kind not in SPARSE_TYPES:
        raise corrupt(reader, f"a sparse VMDK of type {found.kind}")
    return _header(found, head.capacity * SECTOR)


def _descriptor_length(head: Sparse) -> int:
    """Bytes to look at: QEMU reads 20 sectors even if the header says fewer."""
    return min(max(20, head.descriptor_length) * SECTOR, MAX_DESCRIPTOR)


def read_descriptor_file(reader: Reader, *, for_qemu: bool = True) -> Header:
    """A text file that names the files with the data. `for_qemu`: QEMU will read it too."""
    if reader.size > MAX_DESCRIPTOR:
        raise corrupt(reader, f"a VMDK descriptor of {reader.size} bytes")
    # A zero byte ends it, as for QEMU, which leaves the end of a longer text behind it.
    text = exactly(reader, 0, reader.size, "the descriptor").partition(b"\0")[0]
    found = parse_descriptor(reader, text, for_qemu=for_qemu)
    _check_kind(reader, found)
    if not found.utf8 and not all(extent.name.isascii() for extent in found.extents):
        raise unsupported(
            reader,
            "the VMDK descriptor names files in another encoding than UTF-8",
            "give these files names of plain letters, and write the same names into the descriptor",
        )
    size = sum(extent.length for extent in found.extents)
    if not found.extents or size > MAX_SIZE:
        raise corrupt(reader, f"{len(found.extents)} extents of {size} bytes together")
    return _header(found, size, found.extents)


def _header(found: Descriptor, size: int, extents: tuple[ExtentFile, ...] = ()) -> Header:
    return Header(
        DiskFormat.VMDK,
        size,
        backing=found.parent,
        extents=extents,
        cid=found.cid,
        backing_cid=found.parent_cid,
    )


def _check_kind(reader: Reader, found: Descriptor) -> None:
    if found.kind in DEVICE_TYPES or "Raw" in found.kind or "RDM" in found.kind:
        raise raw_device(reader)
    only = SNAPSHOT_TYPES.get(found.kind)
    if found.kind not in SPLIT_TYPES or (only and any(e.kind != only for e in found.extents)):
        raise unsupported(
            reader,
            f"VMDK type {found.kind} is not supported",
            f"supported are {', '.join(SPARSE_TYPES + SPLIT_TYPES)}; export the disk again",
        )


def check_extent(reader: Reader, extent: ExtentFile, *, last: bool) -> None:
    """Check one part of a split VMDK, which must hold `extent.length` bytes of the disk.

    What follows the part begins where its own header says that it ends, whatever the descriptor
    says: only the `last` part may be longer.
    """
    if extent.kind in FLAT_KINDS:
        if extent.offset + extent.length > reader.size:
            raise truncated(reader, "the extent", extent.offset + extent.length)
        return
    check_holds(reader, extent, _sectors(reader, extent.kind) * SECTOR, last=last)


def check_holds(reader: Reader, extent: ExtentFile, holds: int, *, last: bool) -> None:
    """The part's own header says that it holds so many bytes of the disk."""
    if holds < extent.length or (holds > extent.length and not last):
        raise corrupt(reader, f"it holds {holds} bytes of the disk instead of {extent.length}")


def _sectors(reader: Reader, kind: str) -> int:
    if kind == "VMFSSPARSE":
        return check_cowd(reader)
    if kind == "SESPARSE":
        return check_sesparse(reader)
    return check_hosted(reader).capacity


def check_chain(child: str, wanted: int | None, parent: str, found: Header) -> None:
    """The parent is what the child was made of: each content of a disk has a number, its CID."""
    if found.cid is None or wanted != found.cid:
        has = "none" if found.cid is None else f"{found.cid:08x}"
        raise SourceError(
            f"{child} was made of another content of {parent} than there is now: it wants CID "
            f"{wanted or 0:08x}, and that has {has}",
            id="vmdk-chain-broken",
            hint=CHAIN_HINT,
        )
