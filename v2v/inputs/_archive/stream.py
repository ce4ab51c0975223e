"""The bytes of archives: in their place, or unpacked on the way, when only forwards will do."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Protocol

from v2v.cancel import Cancel
from v2v.errors import SourceError
from v2v.image.reader import Reader
from v2v.inputs._archive import CHUNK, damaged, truncated
from v2v.inputs._images.packed import XZ_MEMORY

GZIP_WBITS = 16 + zlib.MAX_WBITS
RAW_WBITS = -zlib.MAX_WBITS
MAGICS = {"gzip": b"\x1f\x8b", "xz": b"\xfd7zXZ\0"}


def read_chunks(reader: Reader, offset: int, length: int) -> Iterator[bytes]:
    for at in range(offset, offset + length, CHUNK):
        chunk = reader.read(at, min(CHUNK, offset + length - at))
        if not chunk:
            raise truncated(reader.name, f"nothing comes after byte {at}")
        yield chunk


class PlainStream:
    """An archive in its place. To skip costs nothing, and what cannot be there is an error."""

    def __init__(self, reader: Reader) -> None:
        self.where = reader.name
        self.position = 0
        self._reader = reader

    def read(self, length: int) -> bytes:
        found = self._reader.read(self.position, length)
        self.position += len(found)
        return found

    def skip_to(self, position: int) -> None:
        self.position = position


class UnpackedStream:
    """An archive that is compressed as a whole."""

    def __init__(self, raw: Iterator[bytes], packed: str, where: str, cancel: Cancel) -> None:
        self.where = where
        self.position = 0
        self._chunks = unpacked(raw, packed, where)
        self._cancel = cancel
        self._rest = b""

    def read(self, length: int) -> bytes:
        return b"".join(self.pieces(length))

    def pieces(self, length: int) -> Iterator[bytes]:
        """The next `length` bytes, or those that are left."""
        while length > 0:
            if not self._rest:
                self._cancel.check()
                self._rest = next(self._chunks, b"")
            piece, self._rest = self._rest[:length], self._rest[length:]
            if not piece:
                return
            self.position += len(piece)
            length -= len(piece)
            yield piece

    def skip_to(self, position: int) -> None:
        for _ in self.pieces(position - self.position):
            pass
        if self.position < position:
            raise truncated(self.where, f"it ends at byte {self.position}, unpacked")

    def drain(self) -> None:
        """Read to the end, where checksums are that tell of damage."""
        while next(self.pieces(CHUNK), b""):
            pass


class _Codec(Protocol):
    """As lzma's and zlib's."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Zlib:
    def __init__(self, wbits: int) -> None:
        self._stream = zlib.decompressobj(wbits)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def needs_input(self) -> bool:
        return not self._stream.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._stream.decompress(self._stream.unconsumed_tail + data, max_length)


def _codec(packed: str) -> _Codec:
    if packed == "xz":
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
    return _Zlib(GZIP_WBITS)


def unpacked(raw: Iterator[bytes], packed: str, where: str) -> Iterator[bytes]:
    """What is inside, in pieces of up to CHUNK bytes; several packed files in a row count as one.

    As gzip does it, what follows and is not packed is left out.
    """
    return _decoded(raw, lambda: _codec(packed), MAGICS[packed], where)


def inflated(raw: Iterator[bytes], where: str) -> Iterator[bytes]:
    """The same for a member of a zip archive."""
    return _decoded(raw, lambda: _Zlib(RAW_WBITS), None, where)


def _decoded(
    raw: Iterator[bytes], make: Callable[[], _Codec], magic: bytes | None, where: str
) -> Iterator[bytes]:
    codec: _Codec | None = None
    begun = False
    try:
        for data in raw:
            while True:
                if codec is None:
                    data = data.lstrip(b"\0") if begun else data  # filled up to whole blocks
                    if begun and not _begins(data, magic):
                        break
                    codec, begun = make(), True
                if found := codec.decompress(data, CHUNK):
                    yield found
                data = b""
                if codec.eof:
                    data, codec = codec.unused_data, None
                elif codec.needs_input:
                    break
        while codec and (found := codec.decompress(b"", CHUNK)):
            yield found
    except (zlib.error, lzma.LZMAError, EOFError) as exc:
        raise damaged(where, str(exc)) from exc
    if codec and not codec.eof:
        raise truncated(where, "what is compressed has no end")


def _begins(data: bytes, magic: bytes | None) -> bool:
    """Whether another one may begin there; of its magic only a part may have been read."""
    return bool(data) and magic is not None and data[: len(magic)] == magic[: len(data)]


def first_bytes(head: bytes, packed: str, length: int) -> bytes:
    """What is inside a file that begins so; fewer bytes, where that does not tell."""
    found = b""
    with suppress(SourceError):
        for piece in unpacked(iter([head]), packed, ""):
            found += piece
            if len(found) >= length:
                break
    return found[:length]
