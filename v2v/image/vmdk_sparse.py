"""The data of a VMDK whose blocks ("grains") are found through tables: hosted sparse, COWD.

A directory has the sectors of tables, these have the sectors of the grains; 0 is none. Layouts:
VMware's "Virtual Disk Format" 1.1 and 5.0 technical notes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from v2v.image.formats import MAX_SIZE, MAX_TABLE, SECTOR
from v2v.image.reader import Reader, corrupt, exactly, truncated, unsupported
from v2v.types import KiB, MiB

TABLES_READ = 16 * MiB  # bytes of tables that are read, at most, in search of the end of the data
MAX_DESCRIPTOR = MiB - 1  # QEMU's limit
MAX_GRAIN = 64 * MiB // SECTOR
AT_END = 0xFFFFFFFFFFFFFFFF  # the grain directory's place is told by the footer
COMPRESSED = 1 << 16
COWD_TABLE = 4096  # entries
UNIT = 4 * KiB  # the last grain of a disk may end with the disk


@dataclass(frozen=True, slots=True)
class Sparse:
    """The header of a hosted sparse extent, as far as it matters here."""

    version: int
    flags: int
    capacity: int  # sectors, as all that follows
    grain: int
    descriptor: int
    descriptor_length: int
    table_entries: int
    redundant_directory: int
    directory: int


def check_hosted(reader: Reader) -> Sparse:
    """The checked header of a hosted sparse extent ("KDMV")."""
    head = _unpack(reader, exactly(reader, 0, SECTOR, "the VMDK header"))
    if head.directory == AT_END:
        footer = exactly(reader, max(0, reader.size - 2 * SECTOR), SECTOR, "the VMDK footer")
        if footer[:4] != b"KDMV":
            raise truncated(reader, "the VMDK footer, which comes last,", reader.size + 2 * SECTOR)
        end = _unpack(reader, footer)
        if (end.capacity, end.grain, end.descriptor) != (
            head.capacity,
            head.grain,
            head.descriptor,
        ):
            raise corrupt(reader, "the VMDK header and footer differ")
        head = end
    count = -(-head.capacity // (head.grain * head.table_entries))
    smallest = 1 if head.flags & COMPRESSED else min(head.grain * SECTOR, UNIT)
    # Where there is a second directory, QEMU goes by the first one all the same.
    _check_grains(reader, head.directory, count, head.table_entries, smallest)
    return head


def check_cowd(reader: Reader) -> int:
    """Check an extent of an ESX snapshot ("COWD"); gives the sectors of disk it stands for."""
    raw = exactly(reader, 0, SECTOR, "the COWD header")
    if raw[:4] != b"COWD":
        raise corrupt(reader, "it is not a VMDK extent of type vmfsSparse (COWD)")
    version, _, capacity, grain, directory, count = struct.unpack_from("<6I", raw, 4)
    if version != 1:
        raise unsupported(reader, f"COWD version {version}", "consolidate the VM's snapshots")
    if not capacity:
        raise corrupt(reader, "a COWD extent of 0 sectors")
    _check_grain(reader, grain, 1)
    if not directory or count * COWD_TABLE * grain < capacity:
        raise corrupt(reader, f"a COWD grain directory of {count} entries for {capacity} sectors")
    _check_grains(reader, directory, count, COWD_TABLE, min(grain * SECTOR, UNIT))
    return int(capacity)


def _unpack(reader: Reader, raw: bytes) -> Sparse:
    if raw[:4] != b"KDMV":
        raise corrupt(reader, "it is not a sparse VMDK extent")
    head = Sparse(*struct.unpack_from("<IIQQQQIQQ", raw, 4))
    if head.version not in (1, 2, 3):
        raise unsupported(reader, f"VMDK version {head.version}", "export the disk again")
    if not 0 < head.capacity <= MAX_SIZE // SECTOR:
        raise corrupt(reader, f"a VMDK of {head.capacity} sectors")
    _check_grain(reader, head.grain, 8)
    if not 0 < head.table_entries <= 512:
        raise corrupt(reader, f"{head.table_entries} entries in a VMDK grain table")
    if head.descriptor_length > MAX_DESCRIPTOR // SECTOR:
        raise corrupt(reader, f"a VMDK descriptor of {head.descriptor_length} sectors")
    return head


def _check_grain(reader: Reader, grain: int, smallest: int) -> None:
    if not smallest <= grain <= MAX_GRAIN or grain & (grain - 1):
        raise corrupt(reader, f"a VMDK grain of {grain} sectors")


def _check_grains(reader: Reader, place: int, count: int, entries: int, smallest: int) -> None:
    """The directory and the tables are in the file, and the file reaches the last grain.

    `place` is the directory's sector, `count` its entries, `entries` those of a table, `smallest`
    how many bytes the last grain has at least.
    """
    if count * 4 > MAX_TABLE:
        raise corrupt(reader, f"a VMDK grain directory of {count} entries")
    if place > reader.size // SECTOR:
        raise truncated(reader, "the VMDK grain directory", place * SECTOR)
    directory = exactly(reader, place * SECTOR, count * 4, "the VMDK grain directory")
    tables = [item for (item,) in struct.iter_unpack("<I", directory) if item]
    length = entries * 4
    if tables and max(tables) * SECTOR + length > reader.size:
        raise truncated(reader, "a VMDK grain table", max(tables) * SECTOR + length)
    last = _last_grain(reader, sample(tables, length), length)
    if last and last * SECTOR + smallest > reader.size:
        raise truncated(reader, "the data", last * SECTOR + smallest)


def sample(tables: list[int], length: int) -> list[int]:
    """The tables that are read, each of `length` bytes: all, or evenly some of very many."""
    return tables[:: 1 + len(tables) * length // TABLES_READ]


def _last_grain(reader: Reader, tables: list[int], length: int) -> int:
    """The sector where the last grain starts; 0 without any. 1 stands for a grain of zeroes."""
    last = 0
    for table in tables:
        raw = exactly(reader, table * SECTOR, length, "a VMDK grain table")
        last = max(last, *(item for (item,) in struct.iter_unpack("<I", raw)))
    return last if last > 1 else 0
