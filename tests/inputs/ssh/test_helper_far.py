"""What a false program on the other host may answer: nothing of it is believed."""

from __future__ import annotations

import zlib

import pytest

from v2v.inputs._ssh import helper_program as far
from v2v.inputs._ssh.helper_far import (
    MAX_BODY,
    MAX_PIECES,
    Far,
    NoHello,
    OddAnswer,
    Opened,
    Request,
)

LENGTH = 100_000


class Fed:
    """A Channel that says what it was given, in odd portions, and has then ended."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.sent = b""

    def send(self, data: bytes | memoryview) -> None:
        self.sent += bytes(data)

    def receive_into(self, buffer: memoryview) -> int:
        part = self.data[: min(len(buffer), 1000)]
        buffer[: len(part)] = part
        self.data = self.data[len(part) :]
        return len(part)

    def errors(self) -> str:
        return "words"

    def close(self) -> None:
        pass


def pieces(*parts: tuple[int, int, bytes], number: int = 1, more: bytes = b"") -> bytes:
    """An answer to READ of (kind, plain bytes, what is sent)."""
    table = b"".join(far.PIECE.pack(kind, plain, len(sent)) for kind, plain, sent in parts)
    body = table + b"".join(sent for _, _, sent in parts) + more
    return far.REPLY.pack(number, far.DONE, len(parts), len(body)) + body


def read(answer: bytes) -> Request:
    """A READ that is answered so."""
    channel = Fed(answer)
    one = Far(channel, lambda request, nonzero, sent: request.done.set())
    buffer = memoryview(bytearray(b"?" * LENGTH))
    request = Request(far.READ, b"", Opened(1, b"/f"), 0, LENGTH, buffer)
    number = one.take(request)
    assert number == 1
    one.send(number, request)
    assert channel.sent.endswith(far.REQUEST.pack(1, far.READ, 0, 1, 0, LENGTH))
    with pytest.raises(ConnectionError, match="ended"):
        one.receive()
    return request


def test_honest_answers() -> None:
    text = b"text" * 10_000
    data = zlib.compress(text)
    opened = far.REPLY.pack(0, far.DONE, 0, far.FOUND.size) + bytes(far.FOUND.size)
    rest = LENGTH - 40_000 - 10
    request = read(opened + pieces((2, 40_000, data), (0, rest, b""), (1, 10, b"0123456789")))
    assert request.done.is_set()
    assert request.view == text + bytes(rest) + b"0123456789"


def test_an_error_is_one() -> None:
    body = far.ERRNO.pack(16) + b"busy \xff"
    request = read(far.REPLY.pack(1, far.FAILED, 0, len(body)) + body)
    assert isinstance(request.error, OSError)
    assert request.error.errno == 16


@pytest.mark.parametrize(
    "answer",
    [
        pieces((1, LENGTH, bytes(LENGTH)), number=2),  # to what was not asked
        pieces((1, LENGTH - 1, bytes(LENGTH - 1))),  # too little
        pieces((1, LENGTH, bytes(LENGTH)), (1, 1, b"x")),  # too much
        pieces((0, 2**32 - 1, b"")),
        pieces((1, LENGTH, bytes(10))),  # fewer bytes than it says
        pieces((0, LENGTH, b"zero")),  # zeroes with bytes
        pieces((3, LENGTH, bytes(10))),  # no such kind
        pieces((0, LENGTH, b""), more=b"more"),
        pieces((2, LENGTH, zlib.compress(bytes(LENGTH + 1)))),
        pieces((2, LENGTH, zlib.compress(bytes(50)))),
        pieces((2, LENGTH, b"no zlib")),
        pieces((2, 10, zlib.compress(bytes(10_000_000)))),  # larger than what it stands for
        far.REPLY.pack(1, far.DONE, MAX_PIECES + 1, 0),
        far.REPLY.pack(1, far.FAILED, 0, MAX_BODY + 1),
        far.REPLY.pack(1, far.FAILED, 0, 2) + b"xx",
        far.REPLY.pack(1, 77, 0, 0),
        far.REPLY.pack(0, far.DONE, 0, 2**32 - 1),
    ],
)
def test_odd_answers(answer: bytes) -> None:
    one = Far(Fed(answer), lambda request, nonzero, sent: None)
    view = memoryview(bytearray(LENGTH))
    one.take(Request(far.READ, b"", Opened(1, b"/f"), 0, LENGTH, view))
    with pytest.raises(OddAnswer):
        one.receive()
    (left,) = one.end()
    assert not left.done.is_set()


def test_a_small_bomb_is_not_unpacked() -> None:
    """A piece is never larger than what was asked for."""
    bomb = zlib.compress(bytes(50_000_000))
    one = Far(Fed(pieces((2, LENGTH, bomb), (1, 1, b""))), lambda request, nonzero, sent: None)
    view = memoryview(bytearray(LENGTH))
    one.take(Request(far.READ, b"", Opened(1, b"/f"), 0, LENGTH, view))
    with pytest.raises(OddAnswer):
        one.receive()


@pytest.mark.parametrize("words", [b"", b"sh: python3: not found\n", bytes(200_000)])
def test_no_hello(words: bytes) -> None:
    with pytest.raises(NoHello):
        Far(Fed(words), lambda request, nonzero, sent: None).begin()


def test_words_before_hello_are_passed_over() -> None:
    channel = Fed(b"Welcome!\n" + far.HELLO)
    Far(channel, lambda request, nonzero, sent: None).begin()
    assert channel.data == b""
