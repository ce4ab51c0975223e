"""Servers that tell little, tell wrong, or take only what suits them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.copy.copying import SIZE, copied, memory, noise, nothing_left_over, patchy, pause
from tests.copy.copying import file_sink as sink_of
from tests.fakes.nbd_server import HOLE_AND_ZERO, Entries, NbdServer, serve
from tests.fakes.nbd_wire import Command
from v2v.copy.sinks import NbdSink
from v2v.errors import CopyError
from v2v.types import KiB, MiB


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    with nothing_left_over():
        yield


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    pause(monkeypatch, 0.01, 0.01)


@pytest.fixture
def server(no_leaks: None, tmp_path: Path) -> Iterator[NbdServer]:
    with serve(tmp_path, patchy(SIZE)) as server:
        server.extents = server.true_extents
        yield server


def test_holes_are_not_read(server: NbdServer) -> None:
    result, content = copied(server.endpoint())
    assert content == server.content
    assert 0 < sum(length for _, length in server.asked()) < SIZE
    assert result.size == SIZE
    assert result.data + result.zero == SIZE


def test_without_extents_everything_is_read_once(server: NbdServer) -> None:
    server.contexts = False
    result, content = copied(server.endpoint())
    assert content == server.content
    assert sum(length for _, length in server.asked()) == result.data == SIZE
    assert result.found_zero > 0


def test_without_structured_replies(server: NbdServer) -> None:
    server.structured = False
    assert copied(server.endpoint())[1] == server.content


def test_extents_that_fail_are_data(server: NbdServer) -> None:
    server.extents = lambda offset, length: None
    assert copied(server.endpoint())[1] == server.content


def test_extents_that_fail_after_the_first(server: NbdServer) -> None:
    server.extents = lambda offset, length: None if offset else server.true_extents(0, SIZE // 2)
    assert copied(server.endpoint())[1] == server.content


def shorter(entries: Entries) -> Entries:
    return entries[: max(len(entries) // 3, 1)]


def with_empty_ones(entries: Entries) -> Entries:
    return [one for entry in entries for one in ((0, 3), entry, (0, 0))]


def beyond_the_end(entries: Entries) -> Entries:
    return [*entries[:-1], (entries[-1][0] + 64 * MiB, entries[-1][1])]


def more_than_asked(entries: Entries) -> Entries:
    return [*entries, (MiB, HOLE_AND_ZERO), (2**32 - 1, 0), (2**32 - 1, HOLE_AND_ZERO)]


def holes_that_are_not_zero(entries: Entries) -> Entries:
    return [(length, 1) for length, _ in entries]


def flags_nobody_knows(entries: Entries) -> Entries:
    return [(length, flags | 0xFFF0) for length, flags in entries]


@pytest.mark.parametrize(
    "lie",
    [
        shorter,
        with_empty_ones,
        beyond_the_end,
        more_than_asked,
        holes_that_are_not_zero,
        flags_nobody_knows,
    ],
)
def test_odd_extents_lose_nothing(server: NbdServer, lie) -> None:
    server.extents = lambda offset, length: lie(server.true_extents(offset, length))
    assert copied(server.endpoint())[1] == server.content


def test_one_extent_at_a_time(server: NbdServer) -> None:
    server.extents = lambda offset, length: server.true_extents(offset, min(length, 4096))[:1]
    assert copied(server.endpoint())[1] == server.content


def test_only_empty_extents_end(server: NbdServer) -> None:
    server.extents = lambda offset, length: [(0, HOLE_AND_ZERO)]
    assert copied(server.endpoint())[1] == server.content


def test_extents_finer_than_the_smallest_block(server: NbdServer) -> None:
    """Data from 1000 to 1100, told exactly, where reads have to be of whole 4 KiB."""
    server.content[:] = bytes(1000) + b"x" * 100 + bytes(SIZE - 2100) + b"y" * 1000
    server.extents = server.true_extents
    endpoint = server.endpoint()
    server.blocks = (4096, 4096, MiB)
    endpoint = server.endpoint()
    assert copied(endpoint)[1] == server.content
    assert server.refused == []
    assert 0 < sum(length for _, length in server.asked()) < SIZE // 2


@pytest.mark.parametrize("size", [4096, 5 * 4096, MiB + 4096, 3 * MiB + 5 * 4096])
def test_large_smallest_block_and_a_disk_of_no_whole_units(server: NbdServer, size: int) -> None:
    server.content = patchy(size)
    server.blocks = (4096, 4096, MiB)
    assert copied(server.endpoint())[1] == server.content
    assert server.refused == []


def test_a_disk_that_is_no_multiple_of_its_smallest_block(server: NbdServer) -> None:
    """Such an export breaks the protocol: its end may be unreadable, but not silently."""
    server.content = noise(MiB + 1000)
    server.blocks = (4096, 4096, MiB)
    try:
        _, content = copied(server.endpoint())
    except CopyError as error:
        assert error.id == "copy-read"
    else:
        assert content == server.content


def test_small_largest_block_with_large_units(server: NbdServer) -> None:
    server.blocks = (1, 4096, 64 * KiB)
    _, content = copied(server.endpoint(), request_size=MiB)
    assert content == server.content
    assert server.refused == []
    assert max(length for _, length in server.asked()) <= 64 * KiB


def test_the_inputs_request_size_bounds_reads(server: NbdServer) -> None:
    from dataclasses import replace

    endpoint = replace(server.endpoint(), request_size=128 * KiB)
    assert copied(endpoint)[1] == server.content
    assert max(length for _, length in server.asked()) <= 128 * KiB


def test_one_connection_reads_where_the_server_has_no_multi_conn(server: NbdServer) -> None:
    server.multi_conn = False
    assert copied(server.endpoint(), connections=4)[1] == server.content
    assert server.most_reading == 1


def test_no_more_connections_than_asked_for(server: NbdServer) -> None:
    result, content = copied(server.endpoint(), connections=3)
    assert content == server.content
    assert 1 <= server.most_reading <= 3
    assert result.connections <= 3


@pytest.mark.parametrize("size", [0, 1, 511, 512, 1001, 4095, 4097, MiB - 1, MiB + 1])
def test_disks_of_any_size(server: NbdServer, size: int) -> None:
    server.content = noise(size)
    server.extents = server.all_data
    result, content = copied(server.endpoint())
    assert content == server.content
    assert (result.size, result.data) == (size, size)


@pytest.mark.parametrize("size", [0, 1, 1001, 4096 + 512, MiB + 512])
def test_targets_of_whole_blocks(server: NbdServer, tmp_path: Path, size: int) -> None:
    """The target is as large as its blocks make it; its last one is filled up with zeroes."""
    server.content = noise(size)
    whole = -(-size // 4096) * 4096
    with serve(tmp_path, b"\xff" * whole, "target") as target:
        target.blocks = (4096, 4096, MiB)
        sink = NbdSink(target.endpoint(read_only=False), request_size=64 * KiB, is_zero=False)
        copied(server.endpoint(), sink)
        sink.close()
        assert target.refused == []
        assert target.durable == bytes(server.content) + bytes(whole - size)


def test_a_target_of_small_requests(server: NbdServer, tmp_path: Path) -> None:
    with serve(tmp_path, bytes(SIZE), "target") as target:
        target.blocks = (512, 4096, 32 * KiB)
        sink = NbdSink(target.endpoint(read_only=False), request_size=None, is_zero=True)
        copied(server.endpoint(), sink)
        sink.close()
        assert target.refused == []
        assert target.durable == server.content


def test_a_target_that_cannot_zero(server: NbdServer, tmp_path: Path) -> None:
    with serve(tmp_path, b"\xaa" * SIZE, "target") as target:
        target.can_zero = False
        sink = NbdSink(target.endpoint(read_only=False), request_size=None, is_zero=False)
        copied(server.endpoint(), sink)
        sink.close()
        assert target.asked(Command.ZERO) == []
        assert target.durable == server.content


def test_a_target_without_multi_conn_has_one_connection(server: NbdServer, tmp_path: Path) -> None:
    with serve(tmp_path, bytes(SIZE), "target") as target:
        target.multi_conn = False
        endpoint = target.endpoint(read_only=False)
        before = target.accepted
        sink = NbdSink(endpoint, request_size=64 * KiB, is_zero=True)
        copied(server.endpoint(), sink, connections=4)
        sink.close()
        assert target.accepted == before + 1
        assert target.durable == server.content


def test_a_target_that_is_read_only(server: NbdServer, tmp_path: Path) -> None:
    with serve(tmp_path, bytes(SIZE), "target") as target:
        endpoint = target.endpoint(read_only=False)
        target.read_only = True
        with pytest.raises(CopyError) as error:
            sink = NbdSink(endpoint, request_size=64 * KiB, is_zero=True)
            try:
                copied(server.endpoint(), sink)
            finally:
                sink.hang_up()
        assert error.value.id == "copy-write"


def test_a_target_full_of_garbage(server: NbdServer) -> None:
    with memory(SIZE, fill=b"\x5a\xa5") as target:
        copied(server.endpoint(), sink_of(target, is_zero=False))
        assert target.content == server.content


def test_a_target_that_is_said_to_be_zero_is_not_zeroed(server: NbdServer) -> None:
    """What the source has as holes is left alone: that is what `is_zero` promises."""
    with memory(SIZE, fill=b"\x5a") as target:
        copied(server.endpoint(), sink_of(target, is_zero=True))
        changed = sum(a != b for a, b in zip(target.content, bytes(server.content), strict=True))
        assert changed > 64 * KiB


def test_blocks_of_the_source_that_no_write_is_a_multiple_of(server: NbdServer) -> None:
    """Writes of 96 KiB at most, blocks of 64 KiB: units are whole blocks all the same."""
    server.blocks = (64 * KiB, 64 * KiB, MiB)
    with memory(SIZE) as target:
        sink = sink_of(target, request_size=96 * KiB)
        sink.max_request = 96 * KiB
        result, _ = copied(server.endpoint(), sink)
        assert target.content == server.content
    assert result.write_size <= 96 * KiB
    assert not server.refused
