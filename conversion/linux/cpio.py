"""cpio archives as Linux unpacks them from an initramfs: read with limits, and written.

The format is "newc" (magic 070701, or 070702 with checksums), and an initramfs is any number of
such archives, each plain or compressed, one after the other, with zero bytes between them; see
Documentation/driver-api/early-userspace/buffer-format.rst in the kernel's source.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from conversion.linux.decompress import DecompressError, open_stream
from v2v.types import GiB, KiB, MiB

HEADER = 110  # bytes: the magic and 13 numbers of 8 hex digits
HEX = re.compile(rb"[0-9a-fA-F]+")
MAGICS = (b"070701", b"070702")
TRAILER = "TRAILER!!!"


class CpioError(Exception):
    """Not an initramfs that we understand."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is more than this is an attack, not an initramfs."""

    unpacked: int = 2 * GiB
    entries: int = 300_000
    name: int = 4 * KiB
    kept: int = 64 * MiB  # of file contents asked for


@dataclass(slots=True)
class Archive:
    """What a whole initramfs unpacks to. Paths have no leading slash."""

    modes: dict[str, int] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)  # of links and of what was asked for
    archives: int = 0
    compression: tuple[bytes, ...] = ()  # first bytes of each compressed stream

    def is_folder(self, path: str) -> bool:
        return stat.S_ISDIR(self.modes.get(path, 0))

    def is_link(self, path: str) -> bool:
        return stat.S_ISLNK(self.modes.get(path, 0))


@dataclass(frozen=True, slots=True)
class Entry:
    path: str
    mode: int
    data: bytes = b""


def read_initramfs(
    file: BinaryIO, keep: Callable[[str], bool], limits: Limits = Limits()
) -> Archive:
    """Read every archive of an initramfs, from the file's position to its end.

    `keep` chooses the files whose content is wanted. Raises CpioError.
    """
    found = Archive()
    budget = _Budget(limits)
    while _skip_zeros(file):
        start = file.tell()
        stream = open_stream(file)
        if stream is None:
            reader = _Reader(_plain(file), budget)
            _read_archive(reader, found, keep, limits)
            file.seek(start + reader.position)
            continue
        magic = file.read(4)
        file.seek(start)
        found.compression = (*found.compression, magic)
        reader = _Reader(stream, budget)
        try:
            while reader.skip_zeros():
                _read_archive(reader, found, keep, limits)
        except DecompressError as exc:
            raise CpioError(str(exc)) from exc
    if not found.archives:
        raise CpioError("it is empty")
    return found


class _Budget:
    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.used = 0
        self.kept = 0

    def spend(self, count: int) -> None:
        self.used += count
        if self.used > self.limits.unpacked:
            raise CpioError(f"it unpacks to more than {self.limits.unpacked // MiB} MiB")

    def keep(self, count: int) -> None:
        self.kept += count
        if self.kept > self.limits.kept:
            raise CpioError("its configuration files are too large")


class _Reader:
    """Exact reads from pieces."""

    def __init__(self, pieces: Iterator[bytes], budget: _Budget) -> None:
        self.pieces = pieces
        self.budget = budget
        self.buffer = b""
        self.at = 0  # into the buffer
        self.position = 0  # into the stream

    def _fill(self) -> bool:
        """Get the next piece that is not empty; only when the buffer is used up."""
        for piece in self.pieces:
            if piece:
                self.budget.spend(len(piece))
                self.buffer, self.at = piece, 0
                return True
        self.buffer, self.at = b"", 0
        return False

    def take(self, count: int, *, keep: bool = True) -> bytes:
        parts: list[bytes] = []
        left = count
        while left:
            if self.at == len(self.buffer) and not self._fill():
                raise CpioError("an archive is cut short")
            part = self.buffer[self.at : self.at + left]
            self.at += len(part)
            left -= len(part)
            if keep:
                parts.append(part)
        self.position += count
        return b"".join(parts)

    def skip_zeros(self) -> bool:
        """Go to the next byte that is not zero; False at the end."""
        while True:
            if self.at == len(self.buffer) and not self._fill():
                return False
            rest = self.buffer[self.at :]
            zeros = len(rest) - len(rest.lstrip(b"\0"))
            self.at += zeros
            self.position += zeros
            if zeros < len(rest):
                return True


def _plain(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(64 * KiB):
        yield piece


def _skip_zeros(file: BinaryIO) -> bool:
    while piece := file.read(64 * KiB):
        rest = piece.lstrip(b"\0")
        if rest:
            file.seek(-len(rest), 1)
            return True
    return False


def _read_archive(
    reader: _Reader, found: Archive, keep: Callable[[str], bool], limits: Limits
) -> None:
    while True:
        header = reader.take(HEADER)
        if header[:6] not in MAGICS:
            raise CpioError("there is something in it that is not a cpio archive")
        if not HEX.fullmatch(header, 6):
            raise CpioError("an archive's header is damaged")
        numbers = [int(header[i : i + 8], 16) for i in range(6, HEADER, 8)]
        mode, size, name_size = numbers[1], numbers[6], numbers[11]
        if not 0 < name_size <= limits.name:
            raise CpioError("an archive holds an impossible name")
        raw = reader.take(name_size + _pad(HEADER + name_size))[: name_size - 1]
        name = raw.decode("utf-8", "surrogateescape")
        if name == TRAILER:
            found.archives += 1
            return
        _read_entry(reader, found, keep, name, mode, size)
        if len(found.modes) > limits.entries:
            raise CpioError("it holds too many files")


def _read_entry(
    reader: _Reader, found: Archive, keep: Callable[[str], bool], name: str, mode: int, size: int
) -> None:
    path = clean(name)
    wanted = stat.S_ISLNK(mode) or (stat.S_ISREG(mode) and keep(path))
    if wanted:
        reader.budget.keep(size)
    data = reader.take(size, keep=wanted)
    reader.take(_pad(size), keep=False)
    found.contents.pop(path, None)
    found.modes[path] = mode
    if wanted:
        found.contents[path] = data


def clean(name: str) -> str:
    """The name without a leading "./" or "/"."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _pad(length: int) -> int:
    return -length % 4


def write_archive(entries: Iterable[Entry]) -> bytes:
    """One plain archive; the same entries give the same bytes."""
    out = bytearray()
    for number, entry in enumerate([*entries, Entry(TRAILER, 0)], start=1):
        name = entry.path.encode("utf-8", "surrogateescape") + b"\0"
        links = 2 if stat.S_ISDIR(entry.mode) else 1
        fields = (number, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, 0, 0, len(name), 0)
        out += MAGICS[0] + b"".join(b"%08X" % value for value in fields) + name
        out += bytes(_pad(len(out)))
        out += entry.data
        out += bytes(_pad(len(out)))
    return bytes(out)
