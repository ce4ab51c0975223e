"""The data of an ESXi snapshot of type seSparse: blocks of 4 KiB, tables of 4096 of them.

VMware has not published the layout. This is what QEMU's driver takes, and no more: it was found
out with images of ESXi 6.5 and later.
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass

from v2v.image.formats import MAX_SIZE, MAX_TABLE, SECTOR
from v2v.image.reader import Reader, corrupt, exactly, truncated, unsupported
from v2v.image.vmdk_sparse import sample

MAGIC, VOLATILE_MAGIC = 0xCAFEBABE, 0xCAFECAFE
VERSION = 0x2_00000001
GRAIN = 8  # sectors
TABLE = 64  # sectors
ENTRIES = TABLE * SECTOR // 8
GRAIN_BYTES, TABLE_BYTES = GRAIN * SECTOR, TABLE * SECTOR
TABLE_USED = 0x10000000  # upper half of a directory entry
NOWHERE, UNMAPPED, ZERO, USED = range(4)  # upper four bits of a table entry

# Names of the 64-bit numbers at the start; offsets and lengths are sectors. Zeroes follow.
FIELDS = (
    *("magic", "version", "capacity", "grain", "table", "flags", "r1", "r2", "r3", "r4"),
    *("volatile", "volatile_length", "journal_head", "journal_head_length"),
    *("journal", "journal_length", "directory", "directory_length", "tables", "tables_length"),
    *("bitmap", "bitmap_length", "backmap", "backmap_length", "grains", "grains_length"),
)
HINT = "consolidate the VM's snapshots on its host"


@dataclass(frozen=True, slots=True)
class SeSparse:
    """The header of an extent, as far as it matters here; all in sectors."""

    capacity: int
    directory: int
    directory_length: int
    tables: int
    grains: int


def check_sesparse(reader: Reader) -> int:
    """Check an extent; gives the sectors of disk it stands for."""
    head = read_sesparse(reader)
    tables = [place for place in read_directory(reader, head) if place]
    for table in sample(tables, TABLE_BYTES):
        _check_table(reader, table, head.grains * SECTOR)
    return head.capacity


def read_sesparse(reader: Reader) -> SeSparse:
    """The checked headers of an extent."""
    raw = exactly(reader, 0, SECTOR, "the SEsparse header")
    head: dict[str, int] = dict(
        zip(FIELDS, struct.unpack_from(f"<{len(FIELDS)}Q", raw), strict=True)
    )
    if head["magic"] != MAGIC:
        raise corrupt(reader, "it is not a VMDK extent of type seSparse")
    usual = {"version": VERSION, "grain": GRAIN, "table": TABLE, "flags": 0}
    usual |= dict.fromkeys(("r1", "r2", "r3", "r4"), 0)
    if any(head[name] != value for name, value in usual.items()) or raw[8 * len(FIELDS) :].strip(
        b"\0"
    ):
        raise unsupported(reader, "a kind of seSparse that is not known", HINT)
    _check_volatile(reader, head["volatile"])
    found = SeSparse(
        *(head[name] for name in ("capacity", "directory", "directory_length", "tables", "grains"))
    )
    _check_places(reader, found)
    return found


def _check_volatile(reader: Reader, place: int) -> None:
    if place > reader.size // SECTOR:
        raise truncated(reader, "the second SEsparse header", place * SECTOR)
    raw = exactly(reader, place * SECTOR, SECTOR, "the second SEsparse header")
    magic, _, _, replay = struct.unpack_from("<4Q", raw)
    if magic != VOLATILE_MAGIC or raw[32:].strip(b"\0"):
        raise corrupt(reader, "the second SEsparse header is not one")
    if replay:
        raise unsupported(
            reader,
            "it was not closed: its journal holds changes that are not in the disk yet",
            "start the VM on its host and shut it down, then copy the folder again",
        )


def _check_places(reader: Reader, head: SeSparse) -> None:
    """The directory covers the disk, and what the header points at is in the file."""
    capacity, length = head.capacity, head.directory_length * SECTOR
    if not 0 < capacity <= MAX_SIZE // SECTOR:
        raise corrupt(reader, f"an SEsparse extent of {capacity} sectors")
    if length > MAX_TABLE or length // 8 * ENTRIES * GRAIN < capacity:
        raise corrupt(reader, f"an SEsparse directory of {length} bytes for {capacity} sectors")
    if not (head.directory and head.tables and head.grains):
        raise corrupt(reader, "a part of the SEsparse extent is where its header is")
    sectors = reader.size // SECTOR
    if max(head.directory, head.tables, head.grains) > sectors:
        raise truncated(reader, "the SEsparse header's parts", (sectors + 1) * SECTOR)


def read_directory(reader: Reader, head: SeSparse) -> array[int]:
    """The bytes where the tables begin, 0 where there is none. All of them are in the file."""
    length = head.directory_length * SECTOR
    raw = exactly(reader, head.directory * SECTOR, length, "the SEsparse directory")
    entries = array("Q", (entry for (entry,) in struct.iter_unpack("<Q", raw)))
    if any(entry and entry >> 32 != TABLE_USED for entry in entries):
        raise corrupt(reader, "an odd entry in the SEsparse directory")
    first = head.tables * SECTOR
    places = array("Q", (e and first + (e & 0xFFFFFFFF) * TABLE_BYTES for e in entries))
    if max(places) + TABLE_BYTES > reader.size and any(places):
        raise truncated(reader, "an SEsparse table", max(places) + TABLE_BYTES)
    return places


def _check_table(reader: Reader, place: int, grains: int) -> None:
    raw = exactly(reader, place, TABLE_BYTES, "an SEsparse table")
    entries = [entry for (entry,) in struct.iter_unpack("<Q", raw) if entry]
    if any(entry >> 60 not in (UNMAPPED, ZERO, USED) for entry in entries):
        raise corrupt(reader, "an odd entry in an SEsparse table")
    last = max((grain_number(entry) for entry in entries if entry >> 60 == USED), default=None)
    if last is not None and grains + (last + 1) * GRAIN_BYTES > reader.size:
        raise truncated(reader, "the data", grains + (last + 1) * GRAIN_BYTES)


def grain_number(entry: int) -> int:
    """The number of the grain; its lowest twelve bits are above its others."""
    return (entry >> 48 & 0xFFF) | (entry & 0xFFFFFFFFFFFF) << 12
