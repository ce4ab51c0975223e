"""SFTP, version 3 (draft-ietf-secsh-filexfer-02): what reading needs, with many requests under way.

paramiko's own client asks for 32 KiB at a time; servers of OpenSSH give 255 KiB, and say so.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum

from v2v.inputs._ssh.program import Program
from v2v.types import KiB, MiB

VERSION = 3
IN_FLIGHT = 4 * MiB  # asked for and not answered yet, of one session
READ_SIZE = 32 * KiB  # that every server gives
MAX_READ = 255 * KiB  # an answer is to fit into 256 KiB
MAX_ANSWER = 1 * MiB  # of what is no data
MAX_NAME = 1 * KiB  # bytes; filesystems have 255
LIMITS = b"limits@openssh.com"


class Ask(IntEnum):
    INIT, OPEN, CLOSE, READ = 1, 3, 4, 5
    OPENDIR, READDIR, REALPATH, STAT, EXTENDED = 11, 12, 16, 17, 200


class Say(IntEnum):
    VERSION, STATUS, HANDLE, DATA, NAME, ATTRS, EXTENDED = 2, 101, 102, 103, 104, 105, 201


class Code(IntEnum):
    OK, EOF, NO_SUCH_FILE, PERMISSION_DENIED, FAILURE = range(5)


class Refused(Exception):
    """The server says no."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code, self.words = code, words


class EndOfFile(Refused):
    pass


class ServerEnded(ConnectionError):
    """The connection goes on."""


class OddAnswer(Exception):
    """The server does not keep to the protocol."""


@dataclass(frozen=True, slots=True)
class Attrs:
    size: int | None = None
    mode: int | None = None
    mtime: int | None = None  # seconds


class Fields:
    """The values of an answer, one after another. OddAnswer where there is none."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def _take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        if len(taken) < count:
            raise OddAnswer("it ends too early")
        self._at += count
        return taken

    def u32(self) -> int:
        return int.from_bytes(self._take(4), "big")

    def u64(self) -> int:
        return int.from_bytes(self._take(8), "big")

    def string(self) -> bytes:
        return self._take(self.u32())

    def attrs(self) -> Attrs:
        flags = self.u32()
        size = self.u64() if flags & 1 else None
        if flags & 2:
            self._take(8)  # uid and gid
        mode = self.u32() if flags & 4 else None
        mtime = (self.u32(), self.u32())[1] if flags & 8 else None
        for _ in range(2 * self.u32() if flags & 0x80000000 else 0):
            self.string()
        return Attrs(size, mode, mtime)

    @property
    def left(self) -> int:
        return len(self._data) - self._at


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


class Session:
    """A server's end of one channel. For one thread at a time.

    ConnectionError when the channel ends; after that, and after OddAnswer, it is of no use.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._last = 0  # number of a request
        self._waiting: dict[int, tuple[int, int]] = {}  # reads: where in the buffer, how much
        # Of files that are kept open, by their paths and what they were.
        self.handles: dict[tuple[str, Attrs], bytes] = {}
        self.read_size = READ_SIZE
        with suppress(ConnectionError):  # what is read next tells whether it is the server's end
            program.send(struct.pack(">IBI", 5, Ask.INIT, VERSION))
        kind, fields = self._packet()
        if kind != Say.VERSION or fields.u32() < VERSION:
            raise OddAnswer("no SFTP of version 3")
        extensions = set()
        while fields.left:
            extensions.add(fields.string())
            fields.string()
        if LIMITS in extensions:
            self._ask_limits()

    def close(self) -> None:
        self._program.close()

    @property
    def idle(self) -> bool:
        """Nothing is to come any more: after an error, whether the session is good for more."""
        return not self._waiting

    def _ask_limits(self) -> None:
        answer = self._call(Ask.EXTENDED, _string(LIMITS), expect=Say.EXTENDED)
        answer.u64()  # of a packet
        self.read_size = min(answer.u64() or READ_SIZE, MAX_READ)

    def stat(self, path: bytes) -> Attrs:
        return self._call(Ask.STAT, _string(path), expect=Say.ATTRS).attrs()

    def open(self, path: bytes) -> bytes:
        """A handle, for reading."""
        body = _string(path) + struct.pack(">II", 1, 0)
        return self._call(Ask.OPEN, body, expect=Say.HANDLE).string()

    def real_path(self, path: bytes) -> bytes:
        answer = self._call(Ask.REALPATH, _string(path), expect=Say.NAME)
        if answer.u32() != 1:
            raise OddAnswer("several names for one path")
        return answer.string()

    def folder(self, path: bytes, limit: int) -> list[tuple[bytes, Attrs]]:
        """Names and what they are, as far as the limit."""
        handle = self._call(Ask.OPENDIR, _string(path), expect=Say.HANDLE).string()
        found: list[tuple[bytes, Attrs]] = []
        try:
            while len(found) < limit:
                answer = self._call(Ask.READDIR, _string(handle), expect=Say.NAME)
                count = answer.u32()
                if count == 0:
                    raise OddAnswer("a folder that goes on without names")
                for _ in range(count):
                    name, _long = answer.string(), answer.string()
                    if len(name) > MAX_NAME:
                        raise OddAnswer(f"a name of {len(name)} bytes")
                    found.append((name, answer.attrs()))
        except EndOfFile:
            pass
        self.close_handle(handle)
        return found[:limit]

    def close_handle(self, handle: bytes) -> None:
        self._status(*self._answer(self._send(Ask.CLOSE, _string(handle))))

    def read_into(self, handle: bytes, offset: int, buffer: memoryview) -> None:
        """All of it. EndOfFile if the file ends before. What is answered in part is asked again."""
        todo = _pieces(len(buffer), self.read_size)
        rest: list[tuple[int, int]] = []
        asked = 0  # bytes
        while True:
            while asked < IN_FLIGHT and (piece := rest.pop() if rest else next(todo, None)):
                at, length = piece
                body = _string(handle) + struct.pack(">QI", offset + at, length)
                self._waiting[self._send(Ask.READ, body)] = piece
                asked += length
            if not self._waiting:
                return
            at, length, got = self._data(buffer)
            asked -= length
            if got < length:
                rest.append((at + got, length - got))

    def _data(self, buffer: memoryview) -> tuple[int, int, int]:
        """One answer's place, the length that was asked for, and how much of it came."""
        size, kind, number = struct.unpack(">IBI", self._exactly(9))
        if number not in self._waiting:
            raise OddAnswer("an answer that nobody asked for")
        at, length = self._waiting.pop(number)
        if kind != Say.DATA:
            self._status(kind, self._body(size - 5))
            raise OddAnswer("no data")
        got = int.from_bytes(self._exactly(4), "big")
        if got > length or got == 0 or size != 9 + got:
            raise OddAnswer(f"{got} bytes where {length} were asked for")
        self._fill(buffer[at : at + got])
        return at, length, got

    def _call(self, ask: Ask, body: bytes, *, expect: Say) -> Fields:
        kind, answer = self._answer(self._send(ask, body))
        if kind != expect:
            self._status(kind, answer)
            raise OddAnswer(f"an answer of kind {kind}")
        return answer

    def _send(self, ask: Ask, body: bytes) -> int:
        self._last = (self._last + 1) & 0xFFFFFFFF
        self._program.send(struct.pack(">IBI", 5 + len(body), ask, self._last) + body)
        return self._last

    def _answer(self, number: int) -> tuple[int, Fields]:
        kind, fields = self._packet()
        if fields.u32() != number:
            raise OddAnswer("an answer that nobody asked for")
        return kind, fields

    def _packet(self) -> tuple[int, Fields]:
        size, kind = struct.unpack(">IB", self._exactly(5))
        return kind, self._body(size - 1)

    def _body(self, size: int) -> Fields:
        if not 0 <= size <= MAX_ANSWER:
            raise OddAnswer(f"an answer of {size} bytes")
        return Fields(self._exactly(size))

    def _status(self, kind: int, answer: Fields) -> None:
        """Raise what a status says, unless it is that all is well."""
        if kind != Say.STATUS:
            return
        code = answer.u32()
        words = answer.string().decode(errors="replace") if answer.left else ""
        if code == Code.EOF:
            raise EndOfFile(code, words)
        if code != Code.OK:
            raise Refused(code, words)

    def _exactly(self, count: int) -> bytes:
        data = bytearray(count)
        self._fill(memoryview(data))
        return bytes(data)

    def _fill(self, buffer: memoryview) -> None:
        while buffer:
            count = self._program.receive_into(buffer)
            if count == 0:
                raise ServerEnded("the SFTP server has ended")
            buffer = buffer[count:]


def _pieces(length: int, size: int) -> Iterator[tuple[int, int]]:
    return ((at, min(size, length - at)) for at in range(0, length, size))
