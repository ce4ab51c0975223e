"""Looking at the start of the disk inside a .gz or .xz file, without unpacking it all."""

from __future__ import annotations

import lzma
import zlib

from v2v.errors import SourceError
from v2v.image.magic import HEAD
from v2v.image.reader import Reader
from v2v.types import MiB

XZ_MEMORY = 512 * MiB  # bytes; more than xz's strongest setting asks for
CHUNK = MiB  # bytes read at once


def unpacked_head(reader: Reader, packed: str) -> bytes:
    """The first bytes inside a file packed with gzip or xz; damage is an error."""
    unpack = _gzip(reader) if packed == "gzip" else _xz(reader)
    if not unpack:
        raise SourceError(
            f"{reader.name}: nothing is inside", id="image-empty", hint="was it packed completely?"
        )
    return unpack


def _gzip(reader: Reader) -> bytes:
    stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    found, offset = b"", 0
    try:
        while len(found) < HEAD and not stream.eof:
            chunk = reader.read(offset, CHUNK)
            if not chunk:
                raise _damaged(reader, "gzip", "it ends too early")
            offset += len(chunk)
            found += stream.decompress(chunk, HEAD - len(found))
    except zlib.error as exc:
        raise _damaged(reader, "gzip", str(exc)) from exc
    return found


def _xz(reader: Reader) -> bytes:
    if reader.read(reader.size - 2, 2) != b"YZ":
        raise _damaged(reader, "xz", "it ends too early")
    stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
    found, offset = b"", 0
    try:
        while len(found) < HEAD and not stream.eof:
            chunk = reader.read(offset, CHUNK) if stream.needs_input else b""
            if stream.needs_input and not chunk:
                raise _damaged(reader, "xz", "it ends too early")
            offset += len(chunk)
            found += stream.decompress(chunk, HEAD - len(found))
    except lzma.LZMAError as exc:
        raise _damaged(reader, "xz", str(exc)) from exc
    return found


def _damaged(reader: Reader, packed: str, why: str) -> SourceError:
    return SourceError(
        f"{reader.name}: damaged {packed} file: {why}",
        id="image-packed-damaged",
        hint="take the copy again from where it came",
    )
