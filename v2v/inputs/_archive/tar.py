"""The headers of a tar archive: v7, ustar, pax and GNU.

Read here rather than by Python's tarfile. That takes a damaged header for the end of the archive,
so that members behind it vanish without a word; it goes backwards, which a compressed archive
cannot; and it takes memory as a hostile header says.

Layout: POSIX.1-2017, pax; GNU tar's manual, "Basic Tar Format".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from v2v.inputs._archive import (
    MAX_MEMBERS,
    Indexed,
    Kind,
    Member,
    damaged,
    member,
    too_many,
    truncated,
    unsupported,
)
from v2v.inputs._archive.stream import PlainStream, read_chunks
from v2v.types import MiB

BLOCK = 512
MAX_EXTRA = MiB  # bytes of one extended header
MAX_SIZE = 1 << 62
MAX_NAME = 4096  # characters, as PATH_MAX: thousands of names must fit into memory
FILES = b"0\0" + b"7"
LINKS = b"12"
FOLDERS = b"5"
NO_DATA = b"123456"
DIGITS = 20  # more than any size has

PAX, PAX_GLOBAL, GNU_NAME, GNU_LINK, GNU_SPARSE = b"x", b"g", b"L", b"K", b"S"
NOT_SPARSE = "pack it again without sparse files: tar without -S"


class TarArchive(Indexed):
    """A tar archive that is not compressed: its members are read in their place."""

    def chunks(self, found: Member) -> Iterator[bytes]:
        assert found.offset is not None  # noqa: S101  those of a tar archive have one
        return read_chunks(self._reader, found.offset, found.size)

    def _walk(self) -> Iterator[Member]:
        for one in walk(PlainStream(self._reader)):
            if one.kind is Kind.FILE and (one.offset or 0) + one.size > self._reader.size:
                raise truncated(
                    self.where,
                    f"{one.name!r} has {one.size} bytes from byte {one.offset}, "
                    f"and the archive has {self._reader.size}",
                )
            yield one


class Stream(Protocol):
    """The bytes of an archive, forwards only."""

    where: str  # for messages
    position: int

    def read(self, length: int) -> bytes:
        """`length` bytes; fewer at the end."""
        ...

    def skip_to(self, position: int) -> None:
        """Go on there, or to the end."""
        ...


@dataclass(frozen=True, slots=True)
class _Header:
    name: str
    size: int
    type: bytes


def walk(stream: Stream) -> Iterator[Member]:
    """The members in their order. The data of each is next in the stream when it is given."""
    extra: dict[str, str] = {}  # what extended headers say of the next member
    count = extended = 0
    while header := _next_header(stream):
        if count == MAX_MEMBERS or extended == 3 * MAX_MEMBERS:
            raise too_many(stream.where)
        if header.type in (PAX, PAX_GLOBAL, GNU_NAME, GNU_LINK):
            extra |= _extended(header, stream)
            extended += 1
            continue
        found = _member(header, extra, stream)
        extra = {}
        count += 1
        end = stream.position
        if header.type not in NO_DATA:
            end += -(-found.size // BLOCK) * BLOCK
        yield found
        stream.skip_to(end)


def is_tar(head: bytes) -> bool:
    """Whether a file that begins so is a tar archive, of whatever kind."""
    block = head[:BLOCK]
    return len(block) == BLOCK and bool(block[0]) and _sums(block) != ()


def _next_header(stream: Stream) -> _Header | None:
    """None at the end: a block of zeroes, or where nothing comes any more."""
    at = stream.position
    block = stream.read(BLOCK)
    if not block.strip(b"\0"):
        return None
    if len(block) < BLOCK:
        raise truncated(stream.where, f"it ends within a header, at byte {at + len(block)}")
    if not _sums(block):
        raise damaged(stream.where, f"there is no tar header at byte {at}")
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and block[345]:
        name = f"{_text(block[345:500])}/{name}"
    return _Header(name, _number(block[124:136], stream), block[156:157])


def _sums(block: bytes) -> tuple[int, ...]:
    """The sums that the header's own may be compared with, if one of them is it."""
    try:
        told = int(block[148:156].strip(b"\0 ") or b"x", 8)
    except ValueError:
        return ()
    rest = block[:148] + b" " * 8 + block[156:]
    signed = sum(byte - 256 if byte > 127 else byte for byte in rest)  # as old programs did
    return (told,) if told in (sum(rest), signed) else ()


def _number(field: bytes, stream: Stream) -> int:
    """Octal digits; or binary, behind a first byte of 0x80."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") - (0x80 << 8 * (len(field) - 1))
    else:
        try:
            value = int(field.strip(b"\0 ") or b"0", 8)
        except ValueError:
            value = -1
    return _checked_size(value, stream)


def _checked_size(value: int, stream: Stream) -> int:
    if not 0 <= value <= MAX_SIZE:
        raise damaged(stream.where, f"a size that is none, before byte {stream.position}")
    return value


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _extended(header: _Header, stream: Stream) -> dict[str, str]:
    """What an extended header says that matters here."""
    if header.size > MAX_EXTRA:
        raise damaged(stream.where, f"a header of {header.size} bytes")
    start = stream.position
    data = stream.read(header.size)
    if len(data) < header.size:
        raise truncated(stream.where, f"it ends within a header, at byte {start + len(data)}")
    stream.skip_to(start + -(-header.size // BLOCK) * BLOCK)
    if header.type == GNU_NAME:
        return {"path": _text(data)}
    if header.type == GNU_LINK:
        return {}
    values = _pax(data, stream)
    if header.type == PAX_GLOBAL and values:
        raise unsupported(
            stream.where, f"a global header gives {', '.join(values)}", "pack it again"
        )
    return values


def _pax(data: bytes, stream: Stream) -> dict[str, str]:
    """Records of the form `LENGTH KEY=VALUE\\n`; LENGTH counts all of the record."""
    found, at, end = {}, 0, len(data.rstrip(b"\0"))
    while at < end:
        digits = data[at : at + DIGITS].split(b" ", 1)[0]
        length = int(digits) if digits.isdigit() else 0
        record = data[at : at + length]
        key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if not equals or len(record) < length or record[-1:] != b"\n":
            raise damaged(stream.where, f"an extended header before byte {stream.position}")
        if key in (b"path", b"size") or key.startswith(b"GNU.sparse."):
            found[key.decode(errors="replace")] = value.decode("utf-8", "surrogateescape")
        at += length
    return found


def _member(header: _Header, extra: Mapping[str, str], stream: Stream) -> Member:
    name, size = extra.get("path", header.name), header.size
    if header.type == GNU_SPARSE or any(key.startswith("GNU.sparse.") for key in extra):
        raise unsupported(stream.where, f"{name!r} is packed as a sparse file", NOT_SPARSE)
    if "size" in extra:
        word = extra["size"]
        usable = word.isascii() and word.isdigit() and len(word) <= DIGITS
        size = _checked_size(int(word) if usable else -1, stream)
    if len(name) > MAX_NAME:
        raise damaged(stream.where, f"a name of {len(name)} characters, {name[:40]!r}...")
    folder = header.type in FOLDERS or name.endswith("/")
    return member(name, size, _kind(header.type, folder=folder), stream.position)


def _kind(type: bytes, *, folder: bool) -> Kind:
    if folder:
        return Kind.FOLDER
    if type in FILES:
        return Kind.FILE
    return Kind.LINK if type in LINKS else Kind.DEVICE
