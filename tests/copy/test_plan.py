"""The steps of a copy, by table and against a model that keeps every byte."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.copy.drawings import drawings, drawn, extents
from v2v.copy.plan import Step, Unit, Zero, plan, request_size
from v2v.extents import Extent, intersect, merge, widen
from v2v.types import GiB, KiB, MiB


def U(offset: int, drawing: str) -> Unit:
    return Unit(offset, len(drawing), tuple(extents(drawing, at=offset)))


@pytest.mark.parametrize(
    ("listed", "unit", "alignment", "steps"),
    [
        pytest.param("", 8, 1, [], id="an empty disk"),
        pytest.param("........", 8, 1, [], id="nothing to do"),
        pytest.param("dddddddd", 8, 1, [U(0, "dddddddd")], id="one unit"),
        pytest.param("ddd", 8, 1, [U(0, "ddd")], id="a small disk"),
        pytest.param(
            "dddddddddd",
            4,
            1,
            [U(0, "dddd"), U(4, "dddd"), U(8, "dd")],
            id="data is cut at the grid, the last unit is short",
        ),
        pytest.param("dd|ddd", 4, 1, [U(0, "dddd"), U(4, "d")], id="neighbours are one extent"),
        pytest.param("0d00", 4, 1, [U(0, "0d00")], id="holes of a cell with data are in its unit"),
        pytest.param("000000000", 4, 1, [Zero(0, 9)], id="a hole is one step, however long"),
        pytest.param(
            "00000000000d",
            4,
            1,
            [Zero(0, 8), U(8, "000d")],
            id="a hole ends where the cell of data begins",
        ),
        pytest.param(
            "d0000000000d",
            4,
            1,
            [U(0, "d000"), Zero(4, 4), U(8, "000d")],
            id="whole cells within a hole need no buffer",
        ),
        pytest.param(
            "..dd..0d....",
            8,
            2,
            [U(2, "dd..0d")],
            id="a unit goes from the first to the last listed byte, with gaps between",
        ),
        pytest.param(
            "00..00....00",
            4,
            2,
            [Zero(0, 2), Zero(4, 2), Zero(10, 2)],
            id="holes are not joined over a gap",
        ),
        pytest.param("00..dd", 8, 2, [U(0, "00..dd")], id="a gap between a hole and data"),
        pytest.param("d0000ddd", 8, 4, [U(0, "d0000ddd")], id="data and holes may change anywhere"),
        pytest.param("....d", 4, 4, [U(4, "d")], id="the disk's end counts as aligned"),
    ],
)
def test_plan(listed: str, unit: int, alignment: int, steps: list[Step]) -> None:
    assert list(plan(extents(listed), unit=unit, alignment=alignment, size=len(listed))) == steps


def test_zeroing_fits_into_32_bits() -> None:
    hole = [Extent(0, 2 * GiB + 5, zero=True)]
    assert list(plan(hole, unit=MiB, alignment=1, size=2 * GiB + 5)) == [
        Zero(0, GiB),
        Zero(GiB, GiB),
        Zero(2 * GiB, 5),
    ]


def test_a_long_hole_is_cut_at_whole_blocks() -> None:
    block = 7 * KiB  # 1 GiB is no multiple of it
    steps = list(plan([Extent(0, 3 * GiB, zero=True)], unit=block, alignment=block, size=3 * GiB))
    assert all(step.offset % block == 0 and step.length <= GiB for step in steps)
    assert steps[-1].offset + steps[-1].length == 3 * GiB


@pytest.mark.parametrize(
    ("listed", "size", "fault"),
    [
        ("..dd....", 8, "edge at 2"),
        ("dddddd..", 8, "edge at 6"),
        ("dddd.ddd", 8, "edge at 5"),
        ("dddddddd", 6, "reach 8, beyond the disk's end at 6"),
    ],
)
def test_a_list_that_the_target_cannot_take_is_refused(listed: str, size: int, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        list(plan(extents(listed), unit=8, alignment=4, size=size))


def test_extents_that_overlap_are_refused() -> None:
    with pytest.raises(ValueError, match="overlap from 3 to 4"):
        list(plan([Extent(0, 4), Extent(3, 4, zero=True)], unit=8, alignment=1, size=7))


def test_a_unit_is_whole_blocks() -> None:
    with pytest.raises(ValueError, match="not a multiple"):
        plan([], unit=10, alignment=4, size=0)


@settings(max_examples=300, deadline=None)
@given(
    disk=drawings("d0"),
    kept=drawings("d."),
    cells=st.integers(1, 6),
    alignment=st.integers(1, 9),
)
def test_each_listed_byte_is_in_one_step(disk: str, kept: str, cells: int, alignment: int) -> None:
    size, unit = len(disk.replace("|", "")), cells * alignment
    wide = list(widen((e for e in extents(kept) if e.end <= size), alignment, size))
    listed = list(intersect(extents(disk), wide))
    steps = list(plan(listed, unit=unit, alignment=alignment, size=size))

    assert drawn(_done(steps), size) == drawn(listed, size)
    for step in steps:
        assert step.offset % alignment == 0
        assert step.end % alignment == 0 or step.end == size
    for step in steps:
        if isinstance(step, Unit):
            assert step.offset // unit == (step.end - 1) // unit
            assert (step.offset, step.end) == (step.extents[0].offset, step.extents[-1].end)
            assert list(merge(step.extents)) == list(step.extents)
            assert any(not extent.zero for extent in step.extents)
    assert sum(isinstance(step, Zero) for step in steps) == _holes(drawn(listed, size), unit)


def _done(steps: list[Step]) -> list[Extent]:
    done: list[Extent] = []
    for step in steps:
        hole = (Extent(step.offset, step.length, zero=True),)
        done += step.extents if isinstance(step, Unit) else hole
    return done


def _holes(listed: str, unit: int) -> int:
    """How many holes there are in the cells without data: those that touch are one."""
    cells = [listed[start : start + unit] for start in range(0, len(listed), unit)]
    return len(re.findall("0+", "".join("d" if "d" in cell else cell for cell in cells)))


@pytest.mark.parametrize(
    ("preferred", "maximum", "alignment", "expected"),
    [
        (None, 100, 1, 64),
        (8, 100, 1, 8),
        (80, 50, 1, 50),
        (80, 50, 16, 48),
        (8, 100, 16, 16),
    ],
)
def test_request_size(preferred: int | None, maximum: int, alignment: int, expected: int) -> None:
    assert request_size(preferred, 64, maximum=maximum, alignment=alignment) == expected
