"""The data of a VMDK whose blocks ("grains") are found through tables: hosted sparse, COWD.

A directory has the sectors of tables, these have the sectors of the grains; 0 is none. Layouts:
VMware's "Virtual Disk Format" 1.1 and 5.0 technical notes.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeVar

from v2v.errors import SourceError
from v2v.image.formats import MAX_SIZE, MAX_TABLE, SECTOR
from v2v.image.reader import Reader, corrupt, exactly, truncated, unsupported
from v2v.types import MiB

T = TypeVar("T")
TABLES_READ = 16 * MiB  # bytes of tables that are read, at most, in search of the end of the data
MAX_DESCRIPTOR = MiB - 1  # QEMU's limit
MAX_GRAIN = 64 * MiB // SECTOR
AT_END = 0xFFFFFFFFFFFFFFFF  # the grain directory's place is told by the footer
REDUNDANT, COMPRESSED = 1 << 1, 1 << 16  # flags
READ_AT_ONCE = MiB  # bytes of tables that are side by side
COWD_TABLE = 4096  # entries


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


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the grains of an extent are told."""

    directory: int  # its sector
    tables: int  # how many the directory has
    entries: int  # of a table
    grain: int  # sectors
    capacity: int  # sectors
    packed: bool = False  # each grain is compressed, and has the length that it tells itself


def check_hosted(reader: Reader) -> Sparse:
    """The checked header of a hosted sparse extent ("KDMV"); its tables were looked at."""
    head = read_hosted(reader)
    layout = hosted_layout(head)
    _check_grains(reader, layout)
    check_redundant(reader, head, layout)
    return head


def read_hosted(reader: Reader) -> Sparse:
    """The header of a hosted sparse extent, or its footer where that holds instead."""
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
    return head


def hosted_layout(head: Sparse) -> Layout:
    count = -(-head.capacity // (head.grain * head.table_entries))
    packed = bool(head.flags & COMPRESSED)
    return Layout(head.directory, count, head.table_entries, head.grain, head.capacity, packed)


def check_cowd(reader: Reader) -> int:
    """Check an extent of an ESX snapshot ("COWD"); gives the sectors of disk it stands for."""
    layout = read_cowd(reader)
    _check_grains(reader, layout)
    return layout.capacity


def read_cowd(reader: Reader) -> Layout:
    """The header of an extent of an ESX snapshot ("COWD")."""
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
    return Layout(directory, count, COWD_TABLE, grain, capacity)


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


def _check_grains(reader: Reader, layout: Layout) -> None:
    """The directory and the tables are in the file, and the file reaches the end of the data:
    what lies behind it QEMU reads as zeroes, without a word."""
    places = read_directory(reader, layout)
    found = [(number, place) for number, place in enumerate(places) if place]
    end = _data_end(reader, sample(found, layout.entries * 4), layout)
    if end > reader.size:
        raise truncated(reader, "the data", end)


def read_directory(reader: Reader, layout: Layout) -> tuple[int, ...]:
    """The sectors of the tables, 0 where there is none. All of them are in the file."""
    if layout.tables * 4 > MAX_TABLE:
        raise corrupt(reader, f"a VMDK grain directory of {layout.tables} entries")
    return _directory(reader, layout, layout.directory, "VMDK grain directory")


def _directory(reader: Reader, layout: Layout, sector: int, what: str) -> tuple[int, ...]:
    if sector > reader.size // SECTOR:
        raise truncated(reader, f"the {what}", sector * SECTOR)
    places = _numbers(exactly(reader, sector * SECTOR, layout.tables * 4, f"the {what}"))
    last = max(places) * SECTOR + layout.entries * 4
    if any(places) and last > reader.size:
        raise truncated(reader, f"a table of the {what}", last)
    return places


def check_redundant(reader: Reader, head: Sparse, layout: Layout) -> None:
    """Both directories, if there are two, tell of the same grains. QEMU goes by the first alone:
    where that is damaged it reads zeroes, or the parent, without a word."""
    second = head.redundant_directory
    if not head.flags & REDUNDANT or second in (0, head.directory):
        return
    what = "VMDK grain directory"
    pairs = list(
        zip(
            _directory(reader, layout, layout.directory, what),
            _directory(reader, layout, second, f"second {what}"),
            strict=True,
        )
    )
    length = layout.entries * 4
    alone = [pair for pair in pairs if any(pair) and not all(pair)]  # the likeliest to differ
    both = [pair for pair in pairs if all(pair) and pair[0] != pair[1]]
    compared = sample(alone, length) + sample(both, length)
    tables = _read_tables(reader, {place for pair in compared for place in pair if place}, length)
    tables[0] = bytes(length)
    if any(_differ(tables[one], tables[other]) for one, other in compared):
        raise SourceError(
            f"{reader.name}: corrupt image: its two VMDK grain directories tell of different data",
            id="image-corrupt",
            hint="take the copy again from where it came, or let VMware repair it: "
            "vmware-vdiskmanager -R",
        )


def _differ(one: bytes, other: bytes) -> bool:
    """In where there is data, zeroes (1) or nothing (0); `other` may tell of copies elsewhere."""
    if one == other:
        return False
    return any(min(a, 2) != min(b, 2) for a, b in zip(_numbers(one), _numbers(other), strict=True))


def _read_tables(reader: Reader, sectors: Collection[int], length: int) -> dict[int, bytes]:
    """The tables at these sectors, which are in the file; those side by side are read at once."""
    runs: list[list[int]] = []
    for sector in sorted(sectors):
        if (
            runs
            and sector * SECTOR == runs[-1][-1] * SECTOR + length
            and len(runs[-1]) * length < READ_AT_ONCE
        ):
            runs[-1].append(sector)
        else:
            runs.append([sector])
    found: dict[int, bytes] = {}
    for run in runs:
        raw = exactly(reader, run[0] * SECTOR, len(run) * length, "a VMDK grain table")
        found |= {sector: raw[n * length : (n + 1) * length] for n, sector in enumerate(run)}
    return found


def sample(tables: list[T], length: int) -> list[T]:
    """The tables that are read, each of `length` bytes: all, or evenly some of very many."""
    return tables[:: 1 + len(tables) * length // TABLES_READ]


def _data_end(reader: Reader, tables: list[tuple[int, int]], layout: Layout) -> int:
    """The byte where the grain that is last in the file ends, 0 without any; `tables` are numbers
    and sectors. The last grain of the disk may end with the disk."""
    last = index = 0
    read = _read_tables(reader, {place for _, place in tables}, layout.entries * 4)
    for number, place in tables:
        grains = _numbers(read[place])
        if (highest := max(grains)) > last:
            last, index = highest, number * layout.entries + grains.index(highest)
    if last <= 1:  # 1 stands for a grain of zeroes
        return 0
    if layout.packed:
        return last * SECTOR + 1
    held = min(layout.grain, max(1, layout.capacity - index * layout.grain))
    return (last + held) * SECTOR


def _numbers(raw: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(raw) // 4}I", raw)
