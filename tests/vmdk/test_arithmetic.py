"""Tables as runs, pieces that are joined, and what is read together."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from v2v.extents import Extent, merge
from v2v.vmdk.flat import Flat, Holes
from v2v.vmdk.local import LocalFile
from v2v.vmdk.packed import packed_runs
from v2v.vmdk.pieces import NOWHERE, ZERO, Piece, gather, joined
from v2v.vmdk.runs import FAR, OddEntryError, Runs, sector_runs, sesparse_runs

USED, ZEROED, UNMAPPED = 3 << 60, 2 << 60, 1 << 60


def expanded(runs: Runs, grain: int) -> list[int]:
    """The place of each grain."""
    found = []
    for at, place in enumerate(runs.places):
        for grains in range(runs.firsts[at + 1] - runs.firsts[at]):
            found.append(place + grains * grain if place >= 0 else place)
    return found


@pytest.mark.parametrize(
    ("entries", "firsts", "places"),
    [
        ([0, 0, 0], [0, 3], [NOWHERE]),
        ([1, 1, 0], [0, 2, 3], [ZERO, NOWHERE]),
        ([8, 10, 12], [0, 3], [8 * 512]),
        ([8, 10, 11], [0, 2, 3], [8 * 512, 11 * 512]),
        ([8, 0, 10], [0, 1, 2, 3], [8 * 512, NOWHERE, 10 * 512]),
        ([0, 8, 10, 1], [0, 1, 3, 4], [NOWHERE, 8 * 512, ZERO]),
        ([10, 8], [0, 1, 2], [10 * 512, 8 * 512]),
        ([0xFFFFFFFF], [0, 1], [0xFFFFFFFF * 512]),
    ],
)
def test_tables_of_sectors(entries: list[int], firsts: list[int], places: list[int]) -> None:
    raw = struct.pack(f"<{len(entries) + 1}I", *entries, 99)  # the last is behind the disk's end
    runs = sector_runs(raw, len(entries), 2, zero=True)
    assert (list(runs.firsts), list(runs.places)) == (firsts, places)


def test_a_grain_in_the_header_is_odd_where_it_does_not_mean_zeroes() -> None:
    with pytest.raises(OddEntryError):
        sector_runs(struct.pack("<2I", 0, 1), 2, 2, zero=False)


@settings(deadline=None)
@given(st.lists(st.integers(0, 12) | st.integers(0, 0xFFFFFFFF), min_size=1, max_size=60))
def test_runs_of_sectors_tell_what_the_table_does(entries: list[int]) -> None:
    raw = struct.pack(f"<{len(entries)}I", *entries)
    wanted = [e * 512 if e > 1 else (ZERO if e else NOWHERE) for e in entries]
    assert expanded(sector_runs(raw, len(entries), 1, zero=True), 512) == wanted
    apart = packed_runs(raw, len(entries), 1, zero=True)
    assert expanded(apart, 0) == wanted
    places = [place for place in apart.places if place >= 0]
    for place, stored in zip(apart.places, apart.stored or [], strict=True):
        behind = [other - place for other in places if other > place]
        assert place < 0 or 0 < stored <= min(behind, default=stored)


def number(n: int) -> int:
    return USED | (n & 0xFFF) << 48 | n >> 12


@pytest.mark.parametrize(
    ("entries", "firsts", "places"),
    [
        ([0, 0], [0, 2], [NOWHERE]),
        ([ZEROED, UNMAPPED, ZEROED | 5], [0, 3], [ZERO]),
        ([number(0), number(1), number(2)], [0, 3], [4096]),
        ([number(4094), number(4095), number(4096), number(4097)], [0, 4], [4096 * 4095]),
        ([number(3), number(2)], [0, 1, 2], [4 * 4096, 3 * 4096]),
        ([number(3), 0, number(4)], [0, 1, 2, 3], [4 * 4096, NOWHERE, 5 * 4096]),
        ([USED | 0x0FFF_FFFF_FFFF_FFFF], [0, 1], [FAR]),
    ],
)
def test_tables_of_sesparse(entries: list[int], firsts: list[int], places: list[int]) -> None:
    runs = sesparse_runs(struct.pack(f"<{len(entries)}Q", *entries), len(entries), 4096)
    assert (list(runs.firsts), list(runs.places)) == (firsts, places)


@pytest.mark.parametrize("entry", [1, 1 << 59, 4 << 60, 15 << 60])
def test_odd_entries_of_sesparse(entry: int) -> None:
    for entries in ([entry], [number(4095), entry], [0, entry]):
        with pytest.raises(OddEntryError):
            sesparse_runs(struct.pack(f"<{len(entries)}Q", *entries), len(entries), 0)


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from([0, ZEROED, UNMAPPED]) | st.integers(4090, 4100).map(number),
        min_size=1,
        max_size=60,
    )
)
def test_runs_of_sesparse_tell_what_the_table_does(entries: list[int]) -> None:
    def place(entry: int) -> int:
        if entry >> 60 != 3:
            return ZERO if entry else NOWHERE
        return ((entry >> 48 & 0xFFF) + ((entry & 0xFFFFFFFFFFFF) << 12)) * 4096

    raw = struct.pack(f"<{len(entries)}Q", *entries)
    assert expanded(sesparse_runs(raw, len(entries), 0), 4096) == [place(e) for e in entries]


@pytest.mark.parametrize(
    ("ranges", "wanted"),
    [
        ([], []),
        ([(5, 9)], [(5, 9, 1)]),
        ([(20, 30), (0, 10)], [(0, 30, 2)]),  # ten between them
        ([(0, 10), (21, 30)], [(0, 10, 1), (21, 30, 1)]),
        ([(0, 10), (5, 8), (8, 12)], [(0, 12, 3)]),
        ([(0, 60), (60, 100), (100, 101)], [(0, 100, 2), (100, 101, 1)]),  # no longer than 100
        ([(0, 500), (500, 510)], [(0, 500, 1), (500, 510, 1)]),
        ([(7, 9), (7, 9)], [(7, 9, 2)]),
    ],
)
def test_what_is_read_together(
    ranges: list[tuple[int, int]], wanted: list[tuple[int, int, int]]
) -> None:
    found = gather([(*one, n) for n, one in enumerate(ranges)], 10, 100)
    assert [(one.start, one.end, len(one.items)) for one in found] == wanted


def test_neighbours_are_joined(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    file = LocalFile(str(tmp_path / "file"))
    one, other = Flat(file, 0, 100, 0), Flat(file, 100, 200, 0)
    found = joined(
        [
            Piece(0, 10, one, 0),
            Piece(10, 20, one, 10),
            Piece(20, 30, one, 21),
            Piece(30, 40, one, ZERO),
            Piece(40, 100, other, ZERO),
            Piece(100, 110, other, 0),
        ]
    )
    assert [(piece.start, piece.end, piece.place) for piece in found] == [
        (0, 20, 0),
        (20, 30, 21),
        (30, 100, ZERO),
        (100, 110, 0),
    ]
    file.close()


class Told:
    """A file that tells its holes so, whatever it is asked."""

    name, size, version = "file", 1000, ""

    def __init__(self, *told: tuple[int, int, bool]) -> None:
        self.told = told

    def read(self, offset: int, length: int) -> bytes:
        return b"x" * length

    def read_into(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = b"x" * len(buffer)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        return (Extent(*one) for one in self.told)


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ([(100, 200, True)], [(0, 200, True)]),
        ([(100, 50, True), (150, 50, False)], [(0, 50, True), (50, 150, False)]),
        ([], [(0, 200, False)]),
        ([(100, 50, True)], [(0, 50, True), (50, 150, False)]),  # it ends early
        ([(150, 50, True)], [(0, 50, False), (50, 50, True), (100, 100, False)]),  # begins late
        ([(0, 120, True), (180, 900, True)], [(0, 20, True), (20, 60, False), (80, 120, True)]),
        ([(100, 0, True), (100, 20, True), (110, 30, True)], [(0, 40, True), (40, 160, False)]),
    ],
)
def test_what_a_file_does_not_tell_is_data(
    told: list[tuple[int, int, bool]], wanted: list[tuple[int, int, bool]]
) -> None:
    """Bytes [100, 300) of the file are the disk's first 200."""
    part = Flat(Told(*told), 0, 200, 100)
    for step in (200, 7):
        holes = Holes(part, 200)
        found = [e for at in range(0, 200, step) for e in holes.within(at, min(at + step, 200))]
        assert list(merge(found)) == [Extent(*one) for one in wanted]
