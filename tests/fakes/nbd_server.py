"""A small NBD server: what it tells of its disk, and how it fails, is the test's choice.

It listens on a Unix socket, in threads of this process. Everything may be changed while it runs: a
test sets attributes and adds faults. As a target it forgets, when it is restarted, what was not
flushed.
"""

from __future__ import annotations

import errno
import math
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeAlias

from tests.fakes.nbd_wire import Command, Connection, Request
from v2v import nbd_client
from v2v.endpoint import Endpoint
from v2v.types import MiB

BLOCK = 512  # of which `true_extents` tells whether they are zero
HOLE_AND_ZERO = 3  # NBD_STATE_HOLE | NBD_STATE_ZERO
CHANGES = (Command.WRITE, Command.ZERO, Command.TRIM)

Entries: TypeAlias = list[tuple[int, int]]  # length, flags
Answer: TypeAlias = tuple[bytes | int | None, bool]  # data, error or nothing; more may follow


class Act(StrEnum):
    ERROR = "error"  # the request is refused with `Fault.error`
    DROP = "drop"  # the connection ends, the request is not done
    TEAR = "tear"  # the request is done, the connection ends in the middle of the answer
    STALL = "stall"  # no answer until `release`; other requests are answered
    RESTART = "restart"  # the server ends and starts again; what was not flushed is lost
    KILL = "kill"  # the server ends
    SPOIL = "spoil"  # the request is done, the first byte of the range is wrong


@dataclass
class Fault:
    """Meets `command`s that touch [start, end): from number `skip`, every `every`th, `times` times.

    Counted from 0.
    """

    act: Act
    command: Command = Command.READ
    start: int = 0
    end: float = math.inf
    skip: int = 0
    every: int = 1
    times: float = math.inf
    error: int = errno.EIO
    seen: int = 0  # requests that it could have met
    met: int = 0

    def strikes(self, request: Request) -> bool:
        end = request.offset + max(request.length, 1)
        touches = request.offset < self.end and end > self.start
        if request.command != self.command or not touches:
            return False
        number, self.seen = self.seen - self.skip, self.seen + 1
        strikes = number >= 0 and number % self.every == 0 and self.met < self.times
        self.met += strikes
        return strikes


class NbdServer:
    def __init__(self, path: Path, content: bytes | bytearray = b"") -> None:
        self.path = path
        self.connections: list[Connection] = []
        self._stalled: list[Callable[[], None]] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self.reset(content)

    def reset(self, content: bytes | bytearray) -> None:
        """Another disk, and no memory of what was."""
        self.content, self.durable = bytearray(content), bytearray(content)
        self.unflushed: list[tuple[int, bytes]] = []
        self.keeps: Callable[[], bool] = lambda: False  # a write that was not flushed
        self.requests: list[Request] = []
        self.refused: list[Request] = []  # they broke the block sizes, or the disk's end
        self.faults: list[Fault] = []
        self.accepted = 0  # connections so far
        self.most_reading = 0  # connections at a time of which each had read
        self.blocks: tuple[int, int, int] | None = None  # smallest, preferred, largest
        self.multi_conn, self.read_only, self.can_zero = True, False, True
        self.structured, self.contexts = True, True  # replies, base:allocation
        self.extents: Callable[[int, int], Entries | None] = self.all_data

    def all_data(self, offset: int, length: int) -> Entries | None:
        """A block status: the entries from `offset`, or None for an error."""
        return [(length, 0)]

    def true_extents(self, offset: int, length: int) -> Entries | None:
        """Blocks of zeroes are holes."""
        ends = [*range(offset + BLOCK, offset + length, BLOCK), offset + length]
        starts = [offset, *ends[:-1]]
        return [
            (end - start, 0 if any(self.content[start:end]) else HOLE_AND_ZERO)
            for start, end in zip(starts, ends, strict=True)
        ]

    def fault(self, act: Act, command: Command = Command.READ, **more: Any) -> Fault:
        with self._lock:
            self.faults.append(Fault(act, command, **more))
            return self.faults[-1]

    def wait_until_stalled(self, seconds: float = 30) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._stalled, seconds)

    def release(self) -> None:
        """Answer what stalled, and stall no more."""
        with self._lock:
            self.faults = [fault for fault in self.faults if fault.act is not Act.STALL]
            stalled, self._stalled = self._stalled, []
        for answer in stalled:
            answer()

    def endpoint(self, *, read_only: bool = True) -> Endpoint:
        return nbd_client.describe(self.path, read_only=read_only)

    def asked(self, command: Command = Command.READ) -> list[tuple[int, int]]:
        """Offset and length of all such requests so far."""
        return [(r.offset, r.length) for r in self.requests if r.command == command]

    def start(self) -> None:
        self._ending = self._closed = False
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(64)
        self._accepting = self._run(self._accept, self._listener)

    def stop(self) -> None:
        """As if it was killed: every connection ends, and nobody listens."""
        self.path.unlink(missing_ok=True)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        self._drop_connections()

    def restart(self) -> None:
        """As if it was killed and at once started again; who connects meanwhile has to wait."""
        self._drop_connections()
        self.lose()
        with self._changed:
            self._ending = False
            self._changed.notify_all()

    def _drop_connections(self) -> None:
        with self._changed:
            self._ending, self._stalled = True, []
            threads, self._threads = self._threads, []
            for connection in self.connections:
                connection.hang_up()
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join()

    def lose(self) -> None:
        """Forget what was written and not flushed, but for what `keeps` says of each write."""
        with self._lock:
            self._settle([write for write in self.unflushed if self.keeps()])
            self.content[:] = self.durable

    def gone(self, connection: Connection) -> None:
        with self._lock:
            self.connections.remove(connection)

    def handle(self, request: Request, data: bytes, late: Callable[[], None]) -> Answer:
        """Called by connections. `late` answers a request that stalls."""
        with self._changed:
            if self._ending:
                return None, False
            self.requests.append(request)
            reading = sum(one.has_read for one in self.connections)
            self.most_reading = max(self.most_reading, reading)
            if self._breaks_rules(request):
                self.refused.append(request)
                return errno.EINVAL, True
            fault = next((one for one in self.faults if one.strikes(request)), None)
            if fault is None:
                return self.do(request, data), True
            if fault.act is Act.STALL:
                self._stalled.append(late)
                self._changed.notify_all()
                return None, True
            self._ending = fault.act in (Act.RESTART, Act.KILL)
        return self._fail(fault, request, data)

    def _fail(self, fault: Fault, request: Request, data: bytes) -> Answer:
        match fault.act:
            case Act.ERROR:
                return fault.error, True
            case Act.TEAR:
                return self.do(request, data), False
            case Act.SPOIL:
                done = self.do(request, data)
                self.content[request.offset] ^= 1
                return done, True
            case Act.RESTART:
                self.restart()
            case Act.KILL:
                self.stop()
        return None, False

    def do(self, request: Request, data: bytes) -> bytes | int:
        """The data of the answer, or the number of an error."""
        offset, end = request.offset, request.offset + request.length
        with self._lock:
            if request.command in CHANGES:
                return errno.EPERM if self.read_only else self._change(offset, end, data)
            if request.command == Command.READ:
                return bytes(self.content[offset:end])
            if request.command == Command.FLUSH:
                self._settle(self.unflushed)
            elif request.command == Command.EXTENTS:
                entries = self.extents(offset, request.length)
                if entries is None:
                    return errno.EIO
                return b"".join(struct.pack(">II", *entry) for entry in entries)
        return b""

    def _change(self, offset: int, end: int, data: bytes) -> bytes:
        data = data or bytes(end - offset)
        self.content[offset:end] = data
        self.unflushed.append((offset, data))
        return b""

    def _settle(self, writes: list[tuple[int, bytes]]) -> None:
        for offset, data in writes:
            self.durable[offset : offset + len(data)] = data
        self.unflushed = []

    def _breaks_rules(self, request: Request) -> bool:
        if request.command not in (Command.READ, *CHANGES):
            return False
        size, end = len(self.content), request.offset + request.length
        small, _, large = self.blocks or (1, 1, 32 * MiB)
        long = request.length > large and request.command in (Command.READ, Command.WRITE)
        return bool(end > size or request.offset % small or long or (end % small and end != size))

    def _run(self, function: Callable[..., None], *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=function, args=arguments, name="nbd-fake", daemon=True)
        thread.start()
        return thread

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client = listener.accept()[0]
                with self._changed:
                    self._changed.wait_for(lambda: not self._ending or self._closed)
                    if self._closed:
                        client.close()
                        return
                    self.accepted += 1
                    connection = Connection(self, client, self.accepted)
                    self.connections.append(connection)
                    self._threads.append(self._run(connection.serve))


@contextmanager
def serve(
    folder: Path, content: bytes | bytearray = b"", name: str = "fake"
) -> Iterator[NbdServer]:
    server = NbdServer(folder / name, content)
    server.start()
    try:
        yield server
    finally:
        server.stop()
