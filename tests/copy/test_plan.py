"""The arithmetic of copying, by table and against a model that keeps every byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v2v.copy.plan import Step, Write, Zero, plan, request_size
from v2v.extents import Extent
from v2v.types import GiB

DATA, HOLE = False, True


def extents_of(*spans: tuple[int, bool]) -> list[Extent]:
    found, offset = [], 0
    for length, zero in spans:
        found.append(Extent(offset, length, zero))
        offset += length
    return found


def W(offset: int, length: int, *reads: tuple[int, int]) -> Write:
    return Write(offset, length, tuple(Extent(at, size) for at, size in reads))


@pytest.mark.parametrize(
    ("spans", "limits", "expected"),
    [
        pytest.param([], (8, 8, 1), [], id="an empty disk"),
        pytest.param([(20, HOLE)], (8, 8, 1), [Zero(0, 20)], id="only a hole"),
        pytest.param([(8, DATA)], (8, 8, 1), [W(0, 8, (0, 8))], id="one request"),
        pytest.param(
            [(20, DATA)],
            (8, 8, 1),
            [W(0, 8, (0, 8)), W(8, 8, (8, 8)), W(16, 4, (16, 4))],
            id="the last request is short",
        ),
        pytest.param([(8, DATA)], (8, 3, 1), [W(0, 8, (0, 3), (3, 3), (6, 2))], id="small reads"),
        pytest.param(
            [(3, HOLE), (10, DATA), (3, HOLE)],
            (8, 8, 1),
            [Zero(0, 3), W(3, 5, (3, 5)), W(8, 5, (8, 5)), Zero(13, 3)],
            id="data across a request's border",
        ),
        pytest.param(
            [(1, HOLE), (1, DATA), (14, HOLE)],
            (8, 8, 4),
            [W(0, 4, (1, 1)), Zero(4, 12)],
            id="a write is widened to the alignment",
        ),
        pytest.param(
            [(1, DATA), (1, HOLE), (1, DATA), (5, HOLE)],
            (8, 8, 4),
            [W(0, 4, (0, 1), (2, 1)), Zero(4, 4)],
            id="two extents in one block become one write",
        ),
        pytest.param(
            [(4, HOLE), (2, DATA)], (8, 8, 4), [Zero(0, 4), W(4, 2, (4, 2))], id="odd disk end"
        ),
        pytest.param(
            [(3 * GiB, HOLE)],
            (8, 8, 1),
            [Zero(0, GiB), Zero(GiB, GiB), Zero(2 * GiB, GiB)],
            id="zeroing fits into 32 bits",
        ),
    ],
)
def test_plan(
    spans: list[tuple[int, bool]], limits: tuple[int, int, int], expected: list[Step]
) -> None:
    extents = extents_of(*spans)
    size = extents[-1].end if extents else 0
    request, maximum, alignment = limits
    steps = plan(extents, size, request=request, maximum_read=maximum, alignment=alignment)
    assert list(steps) == expected


def test_gaps_are_what_no_read_covers() -> None:
    assert list(W(8, 8, (9, 2), (11, 1), (14, 1)).gaps()) == [
        Extent(8, 1, zero=True),
        Extent(12, 2, zero=True),
        Extent(15, 1, zero=True),
    ]


@given(
    spans=st.lists(st.tuples(st.integers(1, 40), st.booleans()), max_size=20),
    blocks=st.integers(1, 6),
    maximum=st.integers(1, 20),
    alignment=st.integers(1, 8),
)
def test_the_steps_copy_each_byte_once(
    spans: list[tuple[int, bool]], blocks: int, maximum: int, alignment: int
) -> None:
    extents = extents_of(*spans)
    size = extents[-1].end if extents else 0
    source = bytearray(size)
    for extent in extents:
        if not extent.zero:
            source[extent.offset : extent.end] = bytes(
                1 + i % 255 for i in range(extent.offset, extent.end)
            )
    target: list[int | None] = [None] * size
    read: list[int] = [0] * size
    request = blocks * alignment
    position = 0
    for step in plan(extents, size, request=request, maximum_read=maximum, alignment=alignment):
        assert step.offset == position
        position += step.length
        assert position <= size
        if isinstance(step, Zero):
            target[step.offset : position] = bytes(step.length)
            continue
        assert step.offset % alignment == 0
        assert position % alignment == 0 or position == size
        assert step.offset // request == (position - 1) // request
        content = bytearray(b"\xff" * step.length)
        for gap in step.gaps():
            content[gap.offset - step.offset : gap.end - step.offset] = bytes(gap.length)
        for part in step.reads:
            assert 0 < part.length <= maximum
            content[part.offset - step.offset : part.end - step.offset] = source[
                part.offset : part.end
            ]
            for i in range(part.offset, part.end):
                read[i] += 1
        target[step.offset : position] = content
    assert target == list(source)
    assert read == [1 if byte else 0 for byte in source]


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


def test_a_request_is_whole_blocks() -> None:
    with pytest.raises(ValueError, match="not a multiple"):
        list(plan([], 0, request=10, maximum_read=1, alignment=4))
