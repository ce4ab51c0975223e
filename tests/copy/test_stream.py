"""Sinks that take one long request, fed by small reads: an HTTP server that is sent whole PUTs."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.copy.copying import SIZE, copied, nothing_left_over, patchy
from tests.fakes.http_server import QuietHandler, QuietServer, running
from tests.fakes.nbd_server import Act, NbdServer, serve
from v2v.copy.digests import Digests
from v2v.copy.ledger import Ledger
from v2v.copy.plan import Unit, Zero
from v2v.copy.sinks import Feed, NullSink
from v2v.copy.stream import requests
from v2v.errors import CopyError
from v2v.extents import Extent
from v2v.types import KiB, MiB


class PutSink(NullSink):
    """Each write is one PUT with the range that it is for."""

    alignment = 1
    zero_grain = 256 * KiB
    workers = 4
    is_zero = True

    def __init__(self, port: int, request_size: int) -> None:
        super().__init__(request_size=request_size)
        self._port = port

    def write_from(self, reader: Feed, offset: int, length: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        try:
            connection.putrequest("PUT", "/disk")
            connection.putheader("Content-Length", str(length))
            connection.putheader("Content-Range", f"bytes {offset}-{offset + length - 1}/*")
            connection.endheaders()
            buffer = memoryview(bytearray(100_000))
            while length:
                count = reader.readinto(buffer[:length])
                assert count
                connection.send(buffer[:count])
                length -= count
            assert reader.readinto(buffer) == 0
            assert connection.getresponse().status == 200
        finally:
            connection.close()


@contextmanager
def web(content: bytearray, puts: list[tuple[int, int]]) -> Iterator[int]:
    class Handler(QuietHandler):
        def do_PUT(self) -> None:
            length = int(self.headers["Content-Length"])
            offset = int(self.headers["Content-Range"].split()[1].split("-")[0])
            content[offset : offset + length] = self.rfile.read(length)
            puts.append((offset, length))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

    with running(QuietServer(Handler)) as server:
        yield server.server_port


@pytest.fixture
def source(tmp_path: Path) -> Iterator[NbdServer]:
    with nothing_left_over(), serve(tmp_path, patchy(SIZE)) as server:
        server.extents = server.true_extents
        yield server


def test_reads_are_small_and_requests_long(source: NbdServer) -> None:
    content, puts = bytearray(SIZE), []
    source.extents = lambda offset, length: [(length, 0)]
    with web(content, puts) as port:
        result, _ = copied(source.endpoint(), PutSink(port, 2 * MiB))
    assert content == source.content
    assert sorted(puts) == [(0, 2 * MiB), (2 * MiB, 2 * MiB)]
    assert max(length for _, length in source.asked()) <= 1 * MiB
    assert result.write_size == 2 * MiB
    assert result.data == SIZE


def test_large_holes_are_no_part_of_a_request(source: NbdServer) -> None:
    """The request would hold the whole disk, were it not for the hole in its middle."""
    hole = slice(1 * MiB + 7, 3 * MiB)
    source.content[hole] = bytes(hole.stop - hole.start)
    content, puts = bytearray(SIZE), []
    with web(content, puts) as port:
        copied(source.endpoint(), PutSink(port, SIZE))
    assert content == source.content
    assert len(puts) > 1
    assert all(
        offset + length <= hole.start + 4096 or offset >= hole.stop for offset, length in puts
    )


@pytest.mark.parametrize("request_size", [300 * KiB, 1 * MiB, SIZE])
def test_what_is_sent_is_hashed(source: NbdServer, request_size: int) -> None:
    plain, streamed = Digests(None, SIZE), Digests(None, SIZE)
    content: bytearray = bytearray(SIZE)
    copied(source.endpoint(), NullSink(), digests=plain)
    with web(content, []) as port:
        copied(source.endpoint(), PutSink(port, request_size), digests=streamed)
    assert plain.root() == streamed.root()
    assert content == source.content
    plain.close()
    streamed.close()


def test_a_source_that_breaks_is_asked_again_within_the_request(source: NbdServer) -> None:
    source.fault(Act.DROP, skip=2, times=1)
    content: bytearray = bytearray(SIZE)
    with web(content, []) as port:
        result, _ = copied(source.endpoint(), PutSink(port, SIZE))
    assert content == source.content
    assert result.retries


def test_a_request_that_was_not_taken_whole_is_not_done(source: NbdServer) -> None:
    class Sloppy(PutSink):
        def write_from(self, reader: Feed, offset: int, length: int) -> None:
            reader.readinto(memoryview(bytearray(length // 2)))

    ledger = Ledger(None)
    with pytest.raises(CopyError) as error:
        copied(source.endpoint(), Sloppy(0, SIZE), ledger=ledger)
    assert error.value.id == "copy-write"
    assert not ledger.touched().covers(0, 4096)


def test_requests_are_cut_at_gaps_and_holes() -> None:
    extents = (
        Extent(0, 10),
        Extent(10, 2, zero=True),  # short: sent as zeroes
        Extent(12, 8),
        Extent(25, 5),  # after a gap
        Extent(30, 21, zero=True),  # long: 32 to 48 are left, in whole blocks
        Extent(51, 9),
    )
    found = list(requests(Unit(0, 60, extents), grain=8, alignment=8, size=60))
    assert [(type(part), part.offset, part.length) for part in found] == [
        (Unit, 0, 20),
        (Unit, 25, 7),
        (Zero, 32, 16),
        (Unit, 48, 12),
    ]


def test_zeroes_at_the_beginning_of_a_request_are_not_sent(source: NbdServer) -> None:
    source.extents = lambda offset, length: [(length, 0)]
    source.content[1 * MiB : SIZE] = bytes(SIZE - 1 * MiB)
    content, puts = bytearray(SIZE), []
    plain, streamed = Digests(None, SIZE), Digests(None, SIZE)
    copied(source.endpoint(), NullSink(), digests=plain)
    with web(content, puts) as port:
        result, _ = copied(source.endpoint(), PutSink(port, 2 * MiB), digests=streamed)
    assert content == source.content
    assert puts == [(0, 2 * MiB)]
    assert result.found_zero == SIZE - 2 * MiB
    assert plain.root() == streamed.root()
    plain.close()
    streamed.close()


def test_there_are_no_more_requests_at_once_than_the_sink_takes(source: NbdServer) -> None:
    class Narrow(PutSink):
        workers = 1

    with web(bytearray(SIZE), []) as port:
        result, _ = copied(source.endpoint(), Narrow(port, 300 * KiB), connections=4)
    assert result.connections == 1


def test_the_next_request_is_read_while_one_waits_for_its_answer(source: NbdServer) -> None:
    source.extents = lambda offset, length: [(length, 0)]

    class Waiting(PutSink):
        """The first request is answered only when bytes of the second have been asked for."""

        def write_from(self, reader: Feed, offset: int, length: int) -> None:
            super().write_from(reader, offset, length)
            while offset == 0 and max(offset for offset, _ in source.asked()) < length:
                time.sleep(0.001)  # until the time limit of the test

    content = bytearray(SIZE)
    with web(content, []) as port:
        copied(source.endpoint(), Waiting(port, 1 * MiB), connections=1)
    assert content == source.content
