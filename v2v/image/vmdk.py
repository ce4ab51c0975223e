"""VMDK: sparse extents and text descriptors, read by ourselves.

QEMU's driver reads descriptors loosely (it looks for words anywhere in the text) and opens the
files they name. So ours is strict: what is not understood, or could be understood in two ways, is
refused. Layout: VMware's "Virtual Disk Format 5.0" technical note.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from v2v.image.formats import MAX_SIZE, MAX_TABLE, SECTOR, ExtentFile, Header
from v2v.image.reader import Reader, corrupt, exactly, truncated, unsupported
from v2v.types import DiskFormat, KiB, MiB

DESCRIPTOR_MAGIC = b"# Disk DescriptorFile"
MAX_DESCRIPTOR = MiB - 1  # QEMU's limit
MAX_EXTENTS = 4096
GRAIN_TABLES_READ = 8192  # at most so many are read in search of the end of the data
AT_END = 0xFFFFFFFFFFFFFFFF  # the grain directory's place is told by the footer
COMPRESSED, REDUNDANT = 1 << 16, 1 << 1

SPLIT_TYPES = ("monolithicFlat", "vmfs", "twoGbMaxExtentFlat", "twoGbMaxExtentSparse")
SPARSE_TYPES = ("monolithicSparse", "streamOptimized")

_ENTRY = re.compile(r'([A-Za-z][A-Za-z0-9_.]*)\s*=\s*(?:"([^"]*)"|([^"\s]*))')
_EXTENT = re.compile(
    r'(RW|RDONLY|NOACCESS)\s+(\d{1,15})\s+([A-Z]+)(?:\s+"([^"]+)"(?:\s+(\d{1,15}))?)?'
)


@dataclass(frozen=True, slots=True)
class Descriptor:
    kind: str  # createType
    extents: tuple[ExtentFile, ...]
    parent: str | None


@dataclass(frozen=True, slots=True)
class _Sparse:
    version: int
    flags: int
    capacity: int  # sectors, as all that follows
    grain: int
    descriptor: int
    descriptor_length: int
    table_entries: int
    redundant_directory: int
    directory: int


def read_sparse(reader: Reader) -> Header:
    """An image that holds both its data and its descriptor."""
    head = _sparse_head(reader)
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
    found = parse_descriptor(reader, text)
    if found.kind not in SPARSE_TYPES:
        raise corrupt(reader, f"a sparse VMDK of type {found.kind}")
    return Header(DiskFormat.VMDK, head.capacity * SECTOR, backing=found.parent)


def _descriptor_length(head: _Sparse) -> int:
    """Bytes to look at: QEMU reads 20 sectors even if the header says fewer."""
    return min(max(20, head.descriptor_length) * SECTOR, MAX_DESCRIPTOR)


def check_sparse_extent(reader: Reader, length: int) -> None:
    """Check one part of a split sparse VMDK, which must hold `length` bytes of the disk."""
    head = _sparse_head(reader)
    if head.capacity * SECTOR < length:
        raise corrupt(reader, f"it holds {head.capacity * SECTOR} bytes instead of {length}")


def read_descriptor_file(reader: Reader) -> Header:
    """A text file that names the files with the data."""
    if reader.size > MAX_DESCRIPTOR:
        raise corrupt(reader, f"a VMDK descriptor of {reader.size} bytes")
    text, _, rest = exactly(reader, 0, reader.size, "the descriptor").partition(b"\0")
    if rest.strip(b"\0"):
        raise corrupt(reader, "the VMDK descriptor has zero bytes in it")
    found = parse_descriptor(reader, text)
    if found.kind not in SPLIT_TYPES:
        raise unsupported(
            reader,
            f"VMDK type {found.kind} is not supported",
            f"supported are {', '.join(SPARSE_TYPES + SPLIT_TYPES)}; export the disk again",
        )
    size = sum(extent.length for extent in found.extents)
    if not found.extents or size > MAX_SIZE:
        raise corrupt(reader, f"{len(found.extents)} extents of {size} bytes together")
    return Header(DiskFormat.VMDK, size, backing=found.parent, extents=found.extents)


def parse_descriptor(reader: Reader, raw: bytes) -> Descriptor:
    """The text of a descriptor; any line that is not understood is an error."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise corrupt(reader, "the VMDK descriptor is not UTF-8") from None
    if not text.startswith(DESCRIPTOR_MAGIC.decode()):
        raise corrupt(reader, "the VMDK descriptor does not begin as one")
    entries: dict[str, str] = {}
    extents: list[ExtentFile] = []
    for line in _lines(reader, text):
        if match := _EXTENT.fullmatch(line):
            extents.append(_extent(reader, line, match))
        elif match := _ENTRY.fullmatch(line):
            if match[1].lower() in entries:
                raise corrupt(reader, f"the VMDK descriptor has {match[1]} twice")
            entries[match[1].lower()] = match[2] or match[3] or ""
        else:
            raise corrupt(reader, f"the VMDK descriptor has an odd line: {line[:80]!r}")
    _no_second_meaning(reader, text, entries)
    if len(extents) > MAX_EXTENTS:
        raise corrupt(reader, f"{len(extents)} VMDK extents")
    return Descriptor(entries.get("createtype", ""), tuple(extents), _parent(reader, entries))


def _lines(reader: Reader, text: str) -> Iterator[str]:
    for line in text.split("\n"):
        line = line.rstrip("\r").strip(" \t")
        if not line.replace("\t", " ").isprintable():
            raise corrupt(reader, "the VMDK descriptor has control characters")
        if line and not line.startswith("#"):
            yield line


def _no_second_meaning(reader: Reader, text: str, entries: dict[str, str]) -> None:
    """QEMU finds these words even in a comment or inside of another line."""
    for word in ("parentFileNameHint", "createType", "parentCID"):
        if text.lower().count(word.lower()) != (word.lower() in entries):
            raise corrupt(reader, f"the VMDK descriptor has {word} where it does not belong")


def _extent(reader: Reader, line: str, match: re.Match[str]) -> ExtentFile:
    access, sectors, kind, name, offset = match.groups()
    if access != "RW" or kind not in ("FLAT", "SPARSE", "VMFS") or not name:
        raise unsupported(
            reader, f"its extent {line[:80]!r} is not supported", "export the disk again"
        )
    if kind == "SPARSE" and offset not in (None, "0"):
        raise corrupt(reader, f"a sparse VMDK extent with an offset: {line[:80]!r}")
    return ExtentFile(name, int(sectors) * SECTOR, int(offset or 0) * SECTOR, kind == "SPARSE")


def _parent(reader: Reader, entries: dict[str, str]) -> str | None:
    hint = entries.get("parentfilenamehint")
    has_parent = entries.get("parentcid", "ffffffff").lower() != "ffffffff"
    if has_parent and not hint:
        raise corrupt(reader, "the VMDK has a parent, and does not say which")
    return hint or None


def _sparse_head(reader: Reader) -> _Sparse:
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
    _check_grains(reader, head)
    return head


def _unpack(reader: Reader, raw: bytes) -> _Sparse:
    if raw[:4] != b"KDMV":
        raise corrupt(reader, "it is not a sparse VMDK extent")
    head = _Sparse(*struct.unpack_from("<IIQQQQIQQ", raw, 4))
    if head.version not in (1, 2, 3):
        raise unsupported(reader, f"VMDK version {head.version}", "export the disk again")
    if not 0 < head.capacity <= MAX_SIZE // SECTOR:
        raise corrupt(reader, f"a VMDK of {head.capacity} sectors")
    if head.grain < 8 or head.grain & (head.grain - 1) or head.grain > 64 * MiB // SECTOR:
        raise corrupt(reader, f"a VMDK grain of {head.grain} sectors")
    if not 0 < head.table_entries <= 512:
        raise corrupt(reader, f"{head.table_entries} entries in a VMDK grain table")
    if head.descriptor_length > MAX_DESCRIPTOR // SECTOR:
        raise corrupt(reader, f"a VMDK descriptor of {head.descriptor_length} sectors")
    return head


def _check_grains(reader: Reader, head: _Sparse) -> None:
    """The directory and the tables are in the file, and the file reaches the last grain."""
    count = -(-head.capacity // (head.grain * head.table_entries))
    place = head.redundant_directory if head.flags & REDUNDANT else head.directory
    if count * 4 > MAX_TABLE:
        raise corrupt(reader, f"a VMDK grain directory of {count} entries")
    if place > reader.size // SECTOR:
        raise truncated(reader, "the VMDK grain directory", place * SECTOR)
    directory = exactly(reader, place * SECTOR, count * 4, "the VMDK grain directory")
    tables = [item for (item,) in struct.iter_unpack("<I", directory) if item]
    length = head.table_entries * 4
    if tables and max(tables) * SECTOR + length > reader.size:
        raise truncated(reader, "a VMDK grain table", max(tables) * SECTOR + length)
    last = _last_grain(reader, tables[:: 1 + len(tables) // GRAIN_TABLES_READ], length)
    size = 1 if head.flags & COMPRESSED else min(head.grain * SECTOR, 4 * KiB)
    if last and last * SECTOR + size > reader.size:
        raise truncated(reader, "the data", last * SECTOR + size)


def _last_grain(reader: Reader, tables: list[int], length: int) -> int:
    """The sector where the last grain starts; 0 without any. 1 stands for a grain of zeroes."""
    last = 0
    for table in tables:
        raw = exactly(reader, table * SECTOR, length, "a VMDK grain table")
        last = max(last, *(item for (item,) in struct.iter_unpack("<I", raw)))
    return last if last > 1 else 0
