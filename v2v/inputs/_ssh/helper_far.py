"""One program of ours on the other host, as this end sees it: what was asked, what is answered.

The host may be hostile: numbers, lengths and kinds are checked, and memory is bounded.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from v2v.inputs._ssh import helper_program as far
from v2v.inputs._ssh.channel import Channel
from v2v.types import KiB, MiB

PROGRAM = Path(far.__file__).read_bytes()
# -I: nothing of the user's; -S: nothing installed; -B: writes no bytecode.
COMMAND = (
    "exec {python} -IBS -c 'import sys;"
    f'exec(compile(sys.stdin.buffer.read({len(PROGRAM)}),"v2v","exec"))\''
)
PYTHONS = ("python3", "python")  # what it may be called

MAX_NOISE = 64 * KiB  # that a login may print before the program begins
MAX_BODY = 4 * MiB  # of an answer that is no data: 10,000 names
MAX_PIECES = 4096
NOT_LOOKED_AT = 0  # the number of requests whose answers nobody waits for
ZEROES = bytes(MiB)


class OddAnswer(Exception):
    """The program breaks the protocol."""


class NoHello(Exception):
    """The program does not begin."""


@dataclass(eq=False, slots=True)
class Opened:
    """A file, as all programs are told of it."""

    number: int
    path: bytes
    found: bytes = bytes(far.FOUND.size)  # what it must be; zeroes before that is known


@dataclass(eq=False, slots=True)
class Request:
    """`text` or `file`. When `done` is set there is an answer, or an error."""

    operation: int
    text: bytes = b""
    file: Opened | None = None
    offset: int = 0
    length: int = 0
    view: memoryview | None = None  # of READ: filled
    packed: bool = False
    attempts: int = 0
    count: int = 0
    body: bytes = b""
    error: BaseException | None = None
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def data(self) -> int:
        """Bytes of it that are to come; those of other answers are few."""
        return len(self.view) if self.view is not None else 0


class Far:
    """`answered(request, nonzero, sent)` is called by the thread that runs `receive`.

    Bytes: of the data that is not zero, and of what was sent for it.
    """

    def __init__(self, channel: Channel, answered: Callable[[Request, int, int], None]) -> None:
        self.channel = channel
        self.load = 0  # bytes of data that are asked for
        self.answers = 0
        self.heard = time.monotonic()
        self._answered = answered
        self._sending = threading.Lock()
        self._pending_lock = threading.Lock()
        self._pending: dict[int, Request] = {}
        self._last_number = NOT_LOOKED_AT
        self._open: set[int] = set()  # numbers of files, guarded by _sending
        self._ended = False
        self._scratch = memoryview(bytearray(0))

    @property
    def overdue(self) -> float:
        """Seconds without a word, though there is something to say."""
        with self._pending_lock:
            return time.monotonic() - self.heard if self._pending else 0.0

    def begin(self) -> None:
        """Send the program, and wait until it says that it runs."""
        with suppress(ConnectionError):  # it has ended, and said why
            self.channel.send(PROGRAM)
        word, seen = memoryview(bytearray(1)), b""
        for _ in range(MAX_NOISE):
            if self.channel.receive_into(word) == 0:
                raise NoHello(self.channel.errors() or seen.decode(errors="replace"))
            seen = (seen + word)[-4096:]
            if seen.endswith(far.HELLO):
                return
        raise NoHello("something else writes to its output")

    def take(self, request: Request) -> int | None:
        """A number for it; None if the program has ended."""
        with self._pending_lock:
            if self._ended:
                return None
            if not self._pending:
                self.heard = time.monotonic()
            self._last_number = self._last_number % 0xFFFF_FFFF + 1
            self._pending[self._last_number] = request
            self.load += request.data
            return self._last_number

    def send(self, number: int, request: Request) -> None:
        """A failure shows where answers are received."""
        try:
            with self._sending:
                self.channel.send(self._frames(number, request))
        except ConnectionError:
            self.channel.close()

    def _frames(self, number: int, request: Request) -> bytes:
        file = request.file.number if request.file else 0
        before = b""
        if request.operation == far.OPEN:
            self._open.add(file)
        elif request.file is not None and file not in self._open:
            self._open.add(file)
            text = request.file.found + request.file.path
            before = far.REQUEST.pack(NOT_LOOKED_AT, far.OPEN, 0, file, 0, len(text)) + text
        length = len(request.text) if request.text else request.length
        kind = (number, request.operation, int(request.packed), file, request.offset, length)
        return before + far.REQUEST.pack(*kind) + request.text

    def end(self) -> list[Request]:
        """Nothing more can be asked; what is not answered."""
        self.channel.close()
        with self._pending_lock:
            self._ended = True
            left, self._pending = list(self._pending.values()), {}
        return left

    def receive(self) -> None:
        """Answers, until it ends with ConnectionError or OddAnswer."""
        head = memoryview(bytearray(far.REPLY.size))
        while True:
            self._fill(head)
            number, kind, count, length = far.REPLY.unpack(head)
            with self._pending_lock:
                request = self._pending.get(number)
            if request is None and number != NOT_LOOKED_AT:
                raise OddAnswer("an answer to what was not asked")
            nonzero = sent = 0
            if request is not None and kind == far.DONE and request.view is not None:
                nonzero = self._take_pieces(request.view, count, length)
                sent = length - count * far.PIECE.size
            else:
                self._take_body(request, kind, count, length)
            if request is not None:
                with self._pending_lock:
                    del self._pending[number]
                    self.load -= request.data
                self.answers += 1
                self._answered(request, nonzero, sent)

    def _take_body(self, request: Request | None, kind: int, count: int, length: int) -> None:
        if length > MAX_BODY or kind not in (far.DONE, far.FAILED):
            raise OddAnswer(f"an answer of kind {kind} with {length} bytes")
        body = bytearray(length)
        self._fill(memoryview(body))
        if request is None:
            return
        if kind == far.DONE:
            request.count, request.body = count, bytes(body)
            return
        if length < far.ERRNO.size:
            raise OddAnswer("an error without a number")
        words = bytes(body[far.ERRNO.size :]).decode(errors="replace")
        request.error = OSError(far.ERRNO.unpack_from(body)[0], words)

    def _take_pieces(self, view: memoryview, count: int, length: int) -> int:
        """Fill `view`; how many of its bytes are not known to be zero."""
        table = bytearray(far.PIECE.size * count if count <= MAX_PIECES else 0)
        self._fill(memoryview(table))
        at = nonzero = 0
        for kind, plain, sent in far.PIECE.iter_unpack(table):
            if plain > len(view) - at:
                raise OddAnswer("more data than was asked for")
            self._take_piece(kind, sent, view[at : at + plain])
            at += plain
            length -= sent
            nonzero += plain if kind != far.ZERO else 0
        if at != len(view) or length != len(table):
            raise OddAnswer(f"{at} bytes of data instead of {len(view)}")
        return nonzero

    def _take_piece(self, kind: int, sent: int, view: memoryview) -> None:
        if kind == far.ZERO and sent == 0:
            for at in range(0, len(view), len(ZEROES)):
                part = view[at : at + len(ZEROES)]
                part[:] = ZEROES[: len(part)]
        elif kind == far.RAW and sent == len(view):
            self._fill(view)
        elif kind == far.PACKED and sent < len(view):
            if len(self._scratch) < sent:
                self._scratch = memoryview(bytearray(sent))
            self._fill(self._scratch[:sent])
            view[:] = unpacked(self._scratch[:sent], len(view))
        else:
            raise OddAnswer(f"a piece of kind {kind} with {sent} bytes for {len(view)}")

    def _fill(self, view: memoryview) -> None:
        while view:
            count = self.channel.receive_into(view)
            if count == 0:
                raise ConnectionError("the program there has ended")
            self.heard = time.monotonic()
            view = view[count:]


def unpacked(data: memoryview, length: int) -> bytes:
    """Exactly `length` bytes, and never many more on the way."""
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(data, length + 1)
    except zlib.error as exc:
        raise OddAnswer(f"data that cannot be decompressed: {exc}") from exc
    if len(found) != length or not stream.eof:
        raise OddAnswer(f"{length} bytes were compressed to what is something else")
    return found
