"""Members of a zip archive: where their bytes are, and unpacking those that are deflated."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator

from v2v.image.reader import Reader
from v2v.inputs._archive import (
    MAX_MEMBERS,
    Deflated,
    Indexed,
    Kind,
    Member,
    damaged,
    member,
    too_many,
    truncated,
    unsupported,
)
from v2v.inputs._archive.stream import inflated, read_chunks
from v2v.types import MiB

MAGIC = b"PK\x03\x04"
LOCAL_HEADER = struct.Struct("<4s5H3L2H")
ENCRYPTED = 1  # flag bit 0
MAX_READ = 16 * MiB  # of the list of members: room for far more than are allowed
PACK_AGAIN = "unpack it, and give the .ovf file; or pack it again with plain `zip`"
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

# What zipfile raises for archives that are none.
ZIP_ERRORS = (
    zipfile.BadZipFile,
    NotImplementedError,
    ValueError,
    LookupError,
    ArithmeticError,
    struct.error,
    EOFError,
)


class ZipArchive(Indexed):
    """A zip archive in a file or behind a web server."""

    def chunks(self, found: Member) -> Iterator[bytes]:
        assert found.offset is not None  # noqa: S101  members of ours have one
        if found.deflated is None:
            return read_chunks(self._reader, found.offset, found.size)
        raw = read_chunks(self._reader, found.offset, found.deflated.length)
        return self._checked(found, found.deflated, inflated(raw, f"{found.name} in {self.where}"))

    def _walk(self) -> Iterator[Member]:
        return (self._member(info) for info in self._infos())

    def _infos(self) -> list[zipfile.ZipInfo]:
        try:
            with zipfile.ZipFile(_File(self._reader)) as archive:
                infos = archive.infolist()
        except ZIP_ERRORS as exc:
            raise truncated(
                self.where, f"its list of files, which comes last, cannot be read ({exc})"
            ) from exc
        if len(infos) > MAX_MEMBERS:
            raise too_many(self.where)
        return infos

    def _member(self, info: zipfile.ZipInfo) -> Member:
        kind = _kind(info)
        if kind is not Kind.FILE:
            return member(info.filename, 0, kind)
        name = info.filename
        if info.flag_bits & ENCRYPTED:
            raise unsupported(self.where, f"{name!r} is encrypted", PACK_AGAIN)
        if info.compress_type not in METHODS:
            method = info.compress_type
            raise unsupported(
                self.where, f"{name!r} is compressed in a rare way ({method})", PACK_AGAIN
            )
        if info.compress_type == zipfile.ZIP_DEFLATED:
            deflated = Deflated(info.compress_size, info.CRC)
            return member(name, info.file_size, kind, self._data(info), deflated)
        if info.file_size != info.compress_size:
            raise damaged(self.where, f"{name!r} has two sizes")
        return member(name, info.file_size, kind, self._data(info))

    def _data(self, info: zipfile.ZipInfo) -> int:
        """Where a member's bytes begin: behind its own header, which must have the same name."""
        start, name = info.header_offset, info.orig_filename
        header = self._reader.read(start, LOCAL_HEADER.size) if start >= 0 else b""
        if len(header) < LOCAL_HEADER.size or not header.startswith(MAGIC):
            raise damaged(self.where, f"there is no {name!r} at byte {start}")
        fields = LOCAL_HEADER.unpack(header)
        flags, name_length, extra_length = int(fields[2]), int(fields[9]), int(fields[10])
        spelled = self._reader.read(start + LOCAL_HEADER.size, name_length)
        if spelled.decode("utf-8" if flags & 0x800 else "cp437", "replace") != name:
            raise damaged(self.where, f"{name!r} has two names")
        data = start + LOCAL_HEADER.size + name_length + extra_length
        if data + info.compress_size > self._reader.size:
            raise truncated(self.where, f"{name!r} goes on behind its end")
        return data

    def _checked(
        self, found: Member, deflated: Deflated, chunks: Iterator[bytes]
    ) -> Iterator[bytes]:
        """The chunks, as long as they are what the list of files says."""
        size, crc = 0, 0
        for chunk in chunks:
            size += len(chunk)
            crc = zlib.crc32(chunk, crc)
            if size > found.size:
                raise damaged(self.where, f"{found.name!r} is larger than it says")
            yield chunk
        if size != found.size or crc != deflated.crc:
            raise damaged(self.where, f"{found.name!r} is not what was packed (CRC)")


def _kind(info: zipfile.ZipInfo) -> Kind:
    mode = info.external_attr >> 16
    if info.filename.endswith("/") or stat.S_ISDIR(mode):  # is_dir() fails of an empty name
        return Kind.FOLDER
    if stat.S_ISLNK(mode):
        return Kind.LINK
    return Kind.FILE if stat.S_IFMT(mode) in (0, stat.S_IFREG) else Kind.DEVICE


class _File(io.RawIOBase):
    """A reader as the file that zipfile wants. What would take much memory is refused."""

    def __init__(self, reader: Reader) -> None:
        self._reader, self._at = reader, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        at = offset + (0, self._at, self._reader.size)[whence]
        if at < 0:
            raise ValueError("before the start")
        self._at = at
        return at

    def read(self, length: int | None = -1) -> bytes:
        left = max(0, self._reader.size - self._at)
        length = left if length is None or length < 0 else min(length, left)
        if length > MAX_READ:
            raise zipfile.BadZipFile(f"a list of {length} bytes")
        found = self._reader.read(self._at, length)
        self._at += len(found)
        return found
