"""The header of qcow2 images, read by ourselves. Layout: docs/interop/qcow2.txt of QEMU."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from v2v.image.formats import MAX_SIZE, MAX_TABLE, SECTOR, Header
from v2v.image.reader import Reader, corrupt, exactly, truncated, unsupported
from v2v.types import DiskFormat

DIRTY, CORRUPT, DATA_FILE, COMPRESSION, EXTENDED_L2 = (1 << bit for bit in range(5))
OFFSET_MASK = 0x00FFFFFFFFFFFE00  # of L1 and L2 entries
EXTENSION_BACKING_FORMAT = 0xE2792ACA
EXTENSION_DATA_FILE = 0x44415441


@dataclass(frozen=True, slots=True)
class _Qcow2:
    version: int
    backing_offset: int
    backing_size: int
    cluster_bits: int
    size: int
    crypt: int
    l1_entries: int
    l1_offset: int
    refcount_offset: int
    refcount_clusters: int
    features: int = 0
    refcount_order: int = 4
    header_length: int = 72

    @property
    def cluster(self) -> int:
        return 1 << self.cluster_bits


def read_qcow2(reader: Reader) -> Header:
    head = _qcow2_head(reader)
    _check_qcow2(reader, head)
    _check_qcow2_length(reader, head)
    extensions = _qcow2_extensions(reader, head)
    return Header(
        DiskFormat.QCOW2,
        head.size // SECTOR * SECTOR,
        backing=_qcow2_backing(reader, head),
        backing_format=extensions.get(EXTENSION_BACKING_FORMAT),
        data_file=_qcow2_data_file(reader, head, extensions),
    )


def _qcow2_head(reader: Reader) -> _Qcow2:
    values = struct.unpack(">4xIQIIQIIQQI", exactly(reader, 0, 60, "the qcow2 header"))
    if values[0] == 1:
        raise unsupported(
            reader, "qcow version 1 is not supported", "convert it: qemu-img convert -O qcow2"
        )
    if values[0] == 2:
        exactly(reader, 0, 72, "the qcow2 header")
        return _Qcow2(*values)
    if values[0] != 3:
        raise corrupt(reader, f"qcow2 version {values[0]} does not exist")
    features, order, length = struct.unpack(">Q16xII", exactly(reader, 72, 32, "the qcow2 header"))
    return replace(_Qcow2(*values), features=features, refcount_order=order, header_length=length)


def _check_qcow2(reader: Reader, head: _Qcow2) -> None:
    if not 9 <= head.cluster_bits <= 21:
        raise corrupt(reader, f"qcow2 cluster size 2^{head.cluster_bits}")
    if not 72 <= head.header_length <= head.cluster or head.refcount_order > 6:
        raise corrupt(reader, "qcow2 header length or refcount width out of range")
    if head.crypt:
        raise unsupported(
            reader, "the qcow2 image is encrypted", "decrypt it: qemu-img convert with a secret"
        )
    if head.features & CORRUPT:
        raise corrupt(reader, "QEMU marked it as corrupt")
    if head.features & ~(DIRTY | CORRUPT | DATA_FILE | COMPRESSION | EXTENDED_L2):
        raise unsupported(
            reader, f"unknown qcow2 features {head.features:#x}", "a newer QEMU can convert it"
        )
    if head.size > MAX_SIZE:
        raise corrupt(reader, f"a virtual size of {head.size} bytes")


def _check_qcow2_length(reader: Reader, head: _Qcow2) -> None:
    """The tables fit in the file, and the file reaches the last cluster in use."""
    entry = 16 if head.features & EXTENDED_L2 else 8
    covered = head.l1_entries * (head.cluster // entry) * head.cluster
    if head.l1_entries * 8 > MAX_TABLE or covered < head.size:
        raise corrupt(reader, f"an L1 table of {head.l1_entries} entries for {head.size} bytes")
    if head.l1_offset % head.cluster or head.refcount_offset % head.cluster:
        raise corrupt(reader, "a table that does not start at a cluster")
    if not 0 < head.refcount_clusters * head.cluster <= MAX_TABLE:
        raise corrupt(reader, "the size of the refcount table")
    l1 = exactly(reader, head.l1_offset, head.l1_entries * 8, "the L1 table")
    for (raw,) in struct.iter_unpack(">Q", l1):
        if (raw & OFFSET_MASK) + head.cluster > reader.size and raw & OFFSET_MASK:
            raise truncated(reader, "an L2 table", (raw & OFFSET_MASK) + head.cluster)
    last = _last_refcounted(reader, head)
    if last >= reader.size and (end := _last_referenced(reader, head, l1, entry)) >= reader.size:
        raise truncated(reader, "the data", end + 1)


def _last_refcounted(reader: Reader, head: _Qcow2) -> int:
    """Where the last cluster with a reference count starts. Leaked clusters count as well."""
    table = exactly(
        reader, head.refcount_offset, head.refcount_clusters * head.cluster, "the refcount table"
    )
    blocks = [raw & OFFSET_MASK for (raw,) in struct.iter_unpack(">Q", table)]
    per_block = head.cluster * 8 >> head.refcount_order
    for index in range(len(blocks) - 1, -1, -1):
        if not blocks[index]:
            continue
        block = exactly(reader, blocks[index], head.cluster, "a refcount block").rstrip(b"\0")
        if block:
            used = (len(block) - 1) * 8 >> head.refcount_order
            return (index * per_block + used) * head.cluster
    return 0


def _last_referenced(reader: Reader, head: _Qcow2, l1: bytes, entry: int) -> int:
    """Where the last cluster that holds data of the disk starts: a walk of the L2 tables."""
    last = 0
    if head.features & DATA_FILE:
        return last
    for (raw,) in struct.iter_unpack(">Q", l1):
        if not raw & OFFSET_MASK:
            continue
        table = exactly(reader, raw & OFFSET_MASK, head.cluster, "an L2 table")
        for (item,) in struct.iter_unpack(">Q8x" if entry == 16 else ">Q", table):
            compressed = item >> 62 & 1
            mask = (1 << (62 - (head.cluster_bits - 8))) - 1 if compressed else OFFSET_MASK
            last = max(last, item & mask)
    return last


def _qcow2_extensions(reader: Reader, head: _Qcow2) -> dict[int, str]:
    end = min(head.backing_offset or head.cluster, head.cluster)
    area = reader.read(0, end)
    found: dict[int, str] = {}
    offset = head.header_length
    while offset + 8 <= len(area):
        kind, length = struct.unpack_from(">II", area, offset)
        if kind == 0:
            break
        if length > len(area) - offset - 8:
            raise corrupt(reader, "a qcow2 header extension is too long")
        if kind in (EXTENSION_BACKING_FORMAT, EXTENSION_DATA_FILE):
            if kind in found:
                raise corrupt(reader, "a qcow2 header extension appears twice")
            found[kind] = _text(reader, area[offset + 8 : offset + 8 + length])
        offset += 8 + (length + 7) // 8 * 8
    return found


def _qcow2_backing(reader: Reader, head: _Qcow2) -> str | None:
    if not head.backing_offset:
        return None
    if not 0 < head.backing_size <= 1023 or head.backing_offset + head.backing_size > head.cluster:
        raise corrupt(reader, "the name of the backing file does not fit in the header")
    name = exactly(reader, head.backing_offset, head.backing_size, "the name of the backing file")
    return _text(reader, name)


def _qcow2_data_file(reader: Reader, head: _Qcow2, extensions: dict[int, str]) -> str | None:
    if not head.features & DATA_FILE:
        return None
    if not extensions.get(EXTENSION_DATA_FILE):
        raise corrupt(reader, "it keeps its data in another file, and does not say which")
    return extensions[EXTENSION_DATA_FILE]


def _text(reader: Reader, raw: bytes) -> str:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise corrupt(reader, "a name in the header is not UTF-8") from None
    if not text or not text.isprintable():
        raise corrupt(reader, "a name in the header has control characters, or is empty")
    return text
