"""Arithmetic on lists of extents, by table and against a model that keeps every byte."""

from __future__ import annotations

import re
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.copy.drawings import SIZE, drawings, drawn, extents, plain
from v2v.extents import (
    Extent,
    ExtentMap,
    Ranges,
    clip,
    data_bytes,
    intersect,
    merge,
    split,
    subtract,
    widen,
)

LISTS = drawings("d0.")
DISKS = drawings("d0")

modest = settings(max_examples=150, deadline=None)


@pytest.mark.parametrize(
    ("given_extents", "gone", "left"),
    [
        ("dddd00", "......", "dddd00"),
        ("dddddd", "..dd..", "dd..dd"),
        ("000000", "dd0000", "......"),
        ("dd00dd", ".dddd.", "d....d"),
        ("dd..dd", "d....d", ".d..d."),
        ("dddddd", "d.d.d.", ".d.d.d"),
        ("dd|dd|", ".dd...", "d..d.."),
    ],
)
def test_subtract_leaves_what_is_not_gone(given_extents: str, gone: str, left: str) -> None:
    assert list(subtract(extents(given_extents), extents(gone))) == extents(left)


@pytest.mark.parametrize(
    ("given_extents", "kept", "left"),
    [
        ("dddd00", "......", "......"),
        ("dddddd", "..00..", "..dd.."),
        ("dd00dd", ".dddd.", ".d00d."),
        ("dd..dd", ".dddd.", ".d..d."),
        ("dd|dd|", ".dd...", ".d|d.."),
        ("dddddd", ".d|d..", ".d|d.."),
    ],
)
def test_intersect_leaves_what_is_kept(given_extents: str, kept: str, left: str) -> None:
    assert list(intersect(extents(given_extents), extents(kept))) == extents(left)


@pytest.mark.parametrize(
    ("given_extents", "alignment", "end", "wide"),
    [
        ("", 4, 0, ""),
        ("dd........", 4, 10, "dddd......"),
        (".0........", 4, 10, "dddd......"),
        ("...dd.....", 4, 10, "dddddddd.."),
        (".d...d....", 4, 10, "dddddddd.."),
        (".d.......d", 4, 10, "dddd....dd"),
        (".d.d......", 1, 10, ".d.d......"),
        ("......dddd", 4, 7, "....ddd..."),
    ],
)
def test_widen_gives_whole_blocks(given_extents: str, alignment: int, end: int, wide: str) -> None:
    assert list(widen(extents(given_extents), alignment, end)) == extents(wide)


@modest
@given(a=LISTS, b=LISTS)
def test_subtract_and_intersect_take_each_byte_apart(a: str, b: str) -> None:
    pairs = list(zip(plain(a), plain(b), strict=True))
    left = drawn(subtract(extents(a), extents(b)), SIZE)
    assert left == "".join(x if y == "." else "." for x, y in pairs)
    kept = drawn(intersect(extents(a), extents(b)), SIZE)
    assert kept == "".join(x if y != "." else "." for x, y in pairs)


@modest
@given(a=LISTS, at=st.integers(0, SIZE))
def test_an_empty_extent_takes_nothing_away(a: str, at: int) -> None:
    assert list(subtract(extents(a), [Extent(at, 0)])) == extents(a)
    assert list(intersect(extents(a), [Extent(at, 0)])) == []


@modest
@given(a=LISTS, alignment=st.integers(1, 20), end=st.integers(0, SIZE))
def test_widen_gives_every_block_that_is_touched(a: str, alignment: int, end: int) -> None:
    disk = plain(a, end)
    blocks = [disk[start : start + alignment] for start in range(0, end, alignment)]
    expected = "".join(("." if set(block) == {"."} else "d") * len(block) for block in blocks)
    wide = list(widen(clip(extents(a), 0, end), alignment, end))
    assert drawn(wide, end) == expected
    assert len(wide) == len(re.findall("d+", expected))  # those that touch are joined


@modest
@given(a=LISTS)
def test_merge_joins_all_that_touch_and_are_of_one_kind(a: str) -> None:
    joined = list(merge(extents(a)))
    assert drawn(joined, SIZE) == plain(a)
    assert len(joined) == len(re.findall("d+|0+", plain(a)))


def test_merge_drops_empty_extents() -> None:
    given_extents = [Extent(0, 0, zero=True), Extent(0, 2), Extent(2, 0, zero=True), Extent(2, 2)]
    assert list(merge(given_extents)) == [Extent(0, 4)]


@modest
@given(a=LISTS, start=st.integers(0, SIZE), end=st.integers(0, SIZE))
def test_clip_gives_what_lies_between(a: str, start: int, end: int) -> None:
    inside = "".join(x if start <= i < end else "." for i, x in enumerate(plain(a)))
    assert drawn(clip(extents(a), start, end), SIZE) == inside


@modest
@given(a=LISTS, size=st.integers(1, 30))
def test_split_cuts_at_multiples_and_nowhere_else(a: str, size: int) -> None:
    for extent in extents(a):
        parts = list(split(extent, size))
        assert list(merge(parts)) == [extent]
        assert all(part.end % size == 0 for part in parts[:-1])
        assert all(0 < part.length <= size for part in parts)


@modest
@given(a=LISTS)
def test_data_bytes_counts_data_alone(a: str) -> None:
    assert data_bytes(extents(a)) == plain(a).count("d")


# Ranges


def test_ranges_that_touch_become_one() -> None:
    ranges = Ranges()
    assert not ranges
    for offset, length in [(8, 2), (0, 2), (4, 2), (20, 0)]:
        ranges.add(offset, length)
    assert drawn(ranges, 12) == "dd..dd..dd.."
    ranges.add(2, 2)
    assert list(ranges) == [Extent(0, 6), Extent(8, 2)]
    ranges.add(5, 4)
    assert list(ranges) == [Extent(0, 10)]
    assert ranges.length == 10


def test_ranges_cover_what_lies_in_one_range() -> None:
    ranges = Ranges(extents(".dd..dd."))
    assert ranges.covers(1, 2)
    assert ranges.covers(2, 1)
    assert ranges.covers(4, 0)
    assert not ranges.covers(0, 2)
    assert not ranges.covers(2, 2)
    assert not ranges.covers(1, 6)
    assert not ranges.covers(7, 1)


def test_a_copy_of_ranges_goes_its_own_way() -> None:
    ranges = Ranges([Extent(0, 2)])
    other = ranges.copy()
    other.add(4, 2)
    assert list(ranges) == [Extent(0, 2)]
    assert list(other) == [Extent(0, 2), Extent(4, 2)]


def test_ranges_may_grow_while_one_goes_through_them() -> None:
    ranges = Ranges(extents("d.d.d"))
    for extent in ranges:
        ranges.add(extent.end, 1)
    assert list(ranges) == [Extent(0, 6)]


@modest
@given(
    spans=st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, 12)), max_size=30),
    together=st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, 12)), max_size=30),
)
def test_ranges_hold_what_was_added(
    spans: list[tuple[int, int]], together: list[tuple[int, int]]
) -> None:
    ranges, model = Ranges(), set[int]()
    for offset, length in spans:
        ranges.add(offset, length)
        model |= set(range(offset, offset + length))
    ranges.update(Extent(*span) for span in together)
    for offset, length in together:
        model |= set(range(offset, offset + length))
    expected = "".join("d" if i in model else "." for i in range(SIZE + 12))
    assert drawn(ranges, SIZE + 12) == expected
    assert len(list(ranges)) == len(re.findall("d+", expected))
    assert ranges.length == len(model)
    assert bool(ranges) == bool(model)
    for offset, length in spans + together + [(offset, 1) for offset in range(SIZE)]:
        assert ranges.covers(offset, length) == (set(range(offset, offset + length)) <= model)
        span = Extent(offset, length, zero=True)
        assert list(ranges.within(span)) == list(intersect([span], ranges))


@pytest.mark.parametrize("number", [1, 500], ids=["a few", "many"])
def test_ranges_are_the_same_however_they_were_added(number: int) -> None:
    base = [Extent(i * 8, 4) for i in range(500)]
    fresh = [Extent(i * 8 + 2, 3 + i % 5) for i in range(number)]
    at_once, singly = Ranges(base), Ranges(base)
    at_once.update(reversed(fresh))
    for extent in fresh:
        singly.add(extent.offset, extent.length)
    assert list(at_once) == list(singly)


# ExtentMap


def test_a_map_can_be_gone_through_again() -> None:
    extent_map = ExtentMap(iter(extents("dd|d000d")))
    assert list(extent_map) == extents("ddd000d")
    assert list(extent_map) == extents("ddd000d")
    assert (extent_map.size, extent_map.data, extent_map.count) == (7, 4, 3)


def test_a_map_of_an_empty_disk() -> None:
    extent_map = ExtentMap([])
    assert list(extent_map) == []
    assert (extent_map.size, extent_map.data, extent_map.count) == (0, 0, 0)


@modest
@given(disk=DISKS)
def test_a_map_holds_the_extents_joined(disk: str) -> None:
    extent_map = ExtentMap(extents(disk))
    assert list(extent_map) == list(merge(extents(disk)))
    assert extent_map.size == len(disk.replace("|", ""))
    assert extent_map.data == disk.count("d")
    assert extent_map.count == len(list(extent_map))


@pytest.mark.parametrize(
    ("disk", "limit", "expected"),
    [
        ("dd0dd000dd", 5, "dd0dd000dd"),
        ("dd0dd000dd", 4, "ddddd000dd"),
        ("0d0000d", 3, "dd0000d"),
        ("0000d0d", 3, "0000ddd"),
        ("00d", 1, "ddd"),
        ("000", 1, "000"),
        ("0d0d0d0d", 4, "dddddd0d"),
    ],
)
def test_above_the_limit_the_smallest_holes_become_data(
    disk: str, limit: int, expected: str
) -> None:
    assert drawn(ExtentMap(extents(disk), limit=limit), len(disk)) == expected


@modest
@given(disk=DISKS, limit=st.integers(1, 6))
def test_above_the_limit_no_data_becomes_a_hole(disk: str, limit: int) -> None:
    exact = plain(disk, len(disk.replace("|", "")))
    extent_map = ExtentMap(extents(disk), limit=limit)
    held = drawn(extent_map, len(exact))
    changed = {pair for pair in zip(exact, held, strict=True) if pair[0] != pair[1]}
    assert changed <= {("0", "d")}
    assert extent_map.count <= limit
    assert extent_map.count == len(re.findall("d+|0+", held))
    assert extent_map.data == held.count("d")
    assert extent_map.size == len(exact)


@pytest.mark.parametrize("disk", [".dd", "dd.dd"])
def test_a_map_leaves_nothing_out(disk: str) -> None:
    with pytest.raises(ValueError, match="go on at"):
        ExtentMap(extents(disk))


def test_a_map_refuses_extents_that_overlap() -> None:
    with pytest.raises(ValueError, match="end at 4, go on at 3"):
        ExtentMap([Extent(0, 4), Extent(3, 2, zero=True)])


def test_a_map_needs_eight_bytes_for_an_extent() -> None:
    number = 50_000
    tracemalloc.start()
    try:
        extent_map = ExtentMap(Extent(i, 1, i % 2 == 0) for i in range(number))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert extent_map.count == number
    assert held < 12 * number  # an array has some room to grow
