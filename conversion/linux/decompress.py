"""The compressed streams that Linux accepts as an initramfs, decoded piece by piece.

The input is hostile: no single step may make memory grow without bound, whatever the ratio. The
limits on the whole are the caller's (see `cpio.Limits`).
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from v2v.types import KiB, MiB

PIECE = 1 * MiB  # of output, at most, for the formats whose decoder can be told so
FEED = 64 * KiB  # of input at a time
ZSTD_FEED = 1 * KiB  # a zstd block is 4 bytes at least and 128 KiB of output at most: 32 MiB
LZ4_BLOCK = 8 * MiB  # fixed by the legacy format
LZMA_MEMORY = 256 * MiB  # a dictionary no kernel could hold is not worth trying


class DecompressError(Exception):
    """The stream is damaged, cut short, or of a kind we do not know."""


def open_stream(file: BinaryIO) -> Iterator[bytes] | None:
    """Pieces of the stream that begins at the file's position, or None if it is not compressed.

    When the pieces are used up, the file's position is behind the last byte of the stream.
    """
    start = file.tell()
    magic = file.read(6)
    file.seek(start)
    for prefix, decode in DECODERS:
        if magic.startswith(prefix):
            return decode(file)
    return None


def _gzip(file: BinaryIO) -> Iterator[bytes]:
    decoder = zlib.decompressobj(wbits=31)
    while not decoder.eof:
        data = decoder.unconsumed_tail or _feed(file, FEED)
        try:
            yield decoder.decompress(data, PIECE)
        except zlib.error as exc:
            raise DecompressError(f"gzip: {exc}") from exc
    file.seek(-len(decoder.unused_data), 1)


def _bounded(file: BinaryIO, decoder: Any) -> Iterator[bytes]:
    """bz2 and lzma decoders share one interface."""
    while not decoder.eof:
        data = _feed(file, FEED) if decoder.needs_input else b""
        try:
            yield decoder.decompress(data, PIECE)
        except (OSError, ValueError, lzma.LZMAError) as exc:
            raise DecompressError(f"{type(decoder).__name__}: {exc}") from exc
    file.seek(-len(decoder.unused_data), 1)


def _zstd(file: BinaryIO) -> Iterator[bytes]:
    import zstandard

    decoder = zstandard.ZstdDecompressor(max_window_size=128 * MiB).decompressobj()
    while not decoder.eof:
        try:
            yield decoder.decompress(_feed(file, ZSTD_FEED))
        except zstandard.ZstdError as exc:
            raise DecompressError(f"zstd: {exc}") from exc
    file.seek(-len(decoder.unused_data), 1)


def _lz4_legacy(file: BinaryIO) -> Iterator[bytes]:
    """Blocks of a size and that many bytes; no end mark, so it ends at what cannot be a size."""
    import lz4.block

    file.seek(len(LZ4_MAGIC), 1)
    while True:
        start = file.tell()
        header = file.read(4)
        size = struct.unpack("<I", header)[0] if len(header) == 4 else 0
        if header == LZ4_MAGIC:
            continue
        if not 0 < size <= LZ4_BLOCK + LZ4_BLOCK // 255 + 16:
            file.seek(start)
            return
        data = file.read(size)
        if len(data) < size:
            raise DecompressError("lz4: cut short")
        try:
            yield lz4.block.decompress(data, uncompressed_size=LZ4_BLOCK)
        except (lz4.block.LZ4BlockError, ValueError) as exc:
            raise DecompressError(f"lz4: {exc}") from exc


def _feed(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if not data:
        raise DecompressError("the compressed data is cut short")
    return data


def _xz(file: BinaryIO) -> Iterator[bytes]:
    return _bounded(file, lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=LZMA_MEMORY))


def _lzma(file: BinaryIO) -> Iterator[bytes]:
    return _bounded(file, lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=LZMA_MEMORY))


def _bzip2(file: BinaryIO) -> Iterator[bytes]:
    return _bounded(file, bz2.BZ2Decompressor())


LZ4_MAGIC = b"\x02\x21\x4c\x18"
DECODERS: tuple[tuple[bytes, Callable[[BinaryIO], Iterator[bytes]]], ...] = (
    (b"\x1f\x8b", _gzip),
    (b"\x1f\x9e", _gzip),
    (b"\xfd7zXZ\x00", _xz),
    (b"\x28\xb5\x2f\xfd", _zstd),
    (LZ4_MAGIC, _lz4_legacy),
    (b"BZh", _bzip2),
    (b"\x5d\x00\x00", _lzma),
)
