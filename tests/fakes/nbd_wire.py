"""One connection of the NBD server for tests: fixed newstyle handshake, structured replies."""

from __future__ import annotations

import errno
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.fakes.nbd_server import NbdServer

OPTION, OPTION_REPLY = 0x49484156454F5054, 0x3E889045565A9
SIMPLE, STRUCTURED = 0x67446698, 0x668E33EF
EXPORT_NAME, ABORT, INFO, GO, STRUCTURED_REPLIES, LIST_CONTEXTS, SET_CONTEXTS = 1, 2, 6, 7, 8, 9, 10
ACK, INFORMATION, CONTEXT, UNSUPPORTED = 1, 3, 4, 2**31 + 1
BLOCK_SIZES = 3
DONE, DATA, STATUS, ERROR = 1, 1, 5, 2**15 + 1


class Command(IntEnum):
    READ, WRITE, DISCONNECT, FLUSH, TRIM, CACHE, ZERO, EXTENTS = range(8)


@dataclass(frozen=True)
class Request:
    connection: int  # from 1
    command: Command
    offset: int
    length: int


class Connection:
    """Requests are done in the order they come; answers that stall come later, or never."""

    def __init__(self, server: NbdServer, connection: socket.socket, number: int) -> None:
        self.number = number
        self.has_read = False
        self._server = server
        self._socket = connection
        self._file = connection.makefile("rb")
        self._sending = threading.Lock()
        self._structured = False

    def serve(self) -> None:
        try:
            if self._handshake():
                while self._request():
                    """The next one."""
        except (OSError, struct.error):
            """The client went away."""
        finally:
            self.hang_up()
            self._server.gone(self)
            self._file.close()
            self._socket.close()

    def hang_up(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _send(self, data: bytes) -> None:
        with self._sending:
            self._socket.sendall(data)

    def _unpack(self, form: str) -> tuple[int, ...]:
        return struct.unpack(form, self._file.read(struct.calcsize(form)))

    def _handshake(self) -> bool:
        self._send(b"NBDMAGIC" + struct.pack(">QH", OPTION, 3))
        self._unpack(">I")
        while True:
            _, option, length = self._unpack(">QII")
            data = self._file.read(length)
            if option == EXPORT_NAME:
                self._send(self._export())
                return True
            self._answer_option(option, data)
            if option in (ABORT, GO):
                return option == GO

    def _export(self) -> bytes:
        server = self._server
        flags = 1 | 4 | 2 * server.read_only | 64 * server.can_zero | 256 * server.multi_conn
        return struct.pack(">QH", len(server.content), flags)

    def _answer_option(self, option: int, data: bytes) -> None:
        def reply(kind: int, body: bytes = b"") -> None:
            self._send(struct.pack(">QIII", OPTION_REPLY, option, kind, len(body)) + body)

        if option in (GO, INFO):
            reply(INFORMATION, struct.pack(">H", 0) + self._export())
            if self._server.blocks:
                reply(INFORMATION, struct.pack(">HIII", BLOCK_SIZES, *self._server.blocks))
        elif option == STRUCTURED_REPLIES and self._server.structured:
            self._structured = True
        elif option in (LIST_CONTEXTS, SET_CONTEXTS):
            if b"base:allocation" in data and self._server.contexts:
                reply(CONTEXT, struct.pack(">I", 1) + b"base:allocation")
        elif option != ABORT:
            return reply(UNSUPPORTED)
        return reply(ACK)

    def _request(self) -> bool:
        """Whether there may be another one."""
        _, _, kind, cookie, offset, length = self._unpack(">IHHQQI")
        request = Request(self.number, Command(kind), offset, length)
        data = self._file.read(length) if kind == Command.WRITE else b""
        if kind == Command.WRITE and len(data) < length:
            return False

        def late() -> None:
            with suppress(OSError):  # the client may have given up
                self._send(self._answer(request, cookie, self._server.do(request, data)))

        self.has_read |= kind == Command.READ
        if kind == Command.DISCONNECT:
            return False
        done, whole = self._server.handle(request, data, late)
        if done is not None:
            answer = self._answer(request, cookie, done)
            self._send(answer if whole else answer[: len(answer) // 2])
        return whole

    def _answer(self, request: Request, cookie: int, done: bytes | int) -> bytes:
        """`done` is the answer's data, or the number of an error."""
        if not self._structured:
            error, data = (done, b"") if isinstance(done, int) else (0, done)
            return struct.pack(">IIQ", SIMPLE, error, cookie) + data
        kind, body = 0, b""
        if isinstance(done, int):
            kind, body = ERROR, struct.pack(">IH", done or errno.EIO, 0)
        elif request.command == Command.READ:
            kind, body = DATA, struct.pack(">Q", request.offset) + done
        elif request.command == Command.EXTENTS:
            kind, body = STATUS, struct.pack(">I", 1) + done
        return struct.pack(">IHHQI", STRUCTURED, DONE, kind, cookie, len(body)) + body
