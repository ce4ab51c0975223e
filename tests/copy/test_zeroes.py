"""What of a unit is written and what is zeroed, by drawings and against a model of every byte."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.copy.drawings import drawings, extents
from v2v.copy.plan import Unit, Zero, plan
from v2v.copy.zeroes import BLOCK, pieces
from v2v.extents import Extent, intersect, widen
from v2v.types import KiB, MiB


def unit_of(found: list[Extent]) -> Unit:
    return Unit(found[0].offset, found[-1].end - found[0].offset, tuple(found))


def content_of(drawing: str, step: int) -> bytearray:
    """`d` is noise, `z` zeroes that nobody knows of, `0` a hole, and a gap is what was there."""
    fill = {"d": b"\xdd", "z": b"\0", "0": b"\0", ".": b"\xee"}
    return bytearray(b"".join(fill[kind] * step for kind in drawing))


def drawn_pieces(found: list[Extent], step: int) -> str:
    """Pieces that follow each other are parted by `|`."""
    drawing, end = "", found[0].offset
    for piece in found:
        drawing += "." * ((piece.offset - end) // step) or "|"
        drawing += "d0"[piece.zero] * (piece.length // step)
        end = piece.end
    return drawing.strip("|")


@pytest.mark.parametrize(
    ("listed", "grain", "alignment", "expected"),
    [
        pytest.param("dddd", 1, 1, "dddd", id="dense data"),
        pytest.param("zzzz", 1, 1, "0000", id="data that is zeroes"),
        pytest.param("dd00", 1, 1, "dd|00", id="a hole"),
        pytest.param("zz00", 1, 1, "0000", id="a hole and found zeroes are one"),
        pytest.param("z0z00z", 1, 1, "000000", id="found on both sides of holes"),
        pytest.param("dzdzdz", 1, 1, "d|0|d|0|d|0", id="blocks that alternate"),
        pytest.param("dzdzdz", 2, 1, "dddddd", id="blocks that alternate, too short"),
        pytest.param("d0dzzd", 2, 1, "ddd|00|d", id="a short hole is written"),
        pytest.param("dz0dd", 2, 1, "d|00|dd", id="found and known are long enough together"),
        pytest.param("dzzzzd", 2, 4, "dddddd", id="no whole block of the target is zero"),
        pytest.param("dzzzzzzzd", 2, 4, "dddd|0000|d", id="narrowed to the target's blocks"),
        pytest.param("dzd", 0, 2, "ddd", id="no piece is empty"),
        pytest.param("ddddzz", 2, 4, "dddd|00", id="up to the disk's end"),
        pytest.param("ddd.ddd", 1, 1, "ddd.ddd", id="a gap is left alone"),
        pytest.param("zz.00.zd", 1, 1, "00.00.0|d", id="zeroes are not joined over a gap"),
        pytest.param("dz.zd", 2, 1, "dd.dd", id="zeroes do not grow over a gap"),
        pytest.param("d.z", 1, 1, "d.0", id="what is in a gap does not count"),
    ],
)
def test_pieces(listed: str, grain: int, alignment: int, expected: str) -> None:
    """A character is a block; `grain` and `alignment` are in blocks."""
    found = extents(listed.replace("z", "d"), step=BLOCK)
    given_pieces = pieces(
        unit_of(found),
        memoryview(content_of(listed, BLOCK)),
        grain=grain * BLOCK,
        alignment=alignment * BLOCK,
        size=len(listed) * BLOCK,
    )
    assert drawn_pieces(given_pieces, BLOCK) == expected


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        pytest.param("zzzzzzzz", "00000000", id="a whole block"),
        pytest.param("zzzzdddd", "dddddddd", id="half a block is not looked for"),
        pytest.param("0000dddd", "0000|dddd", id="but may be known"),
        pytest.param("0000zzzzdddddddd", "00000000|dddddddd", id="a hole that fills the block up"),
        pytest.param("zz0zz0zz", "00000000", id="holes and found zeroes in one block"),
        pytest.param("zz.zz0dd", "00.dd|0|dd", id="the start of a block, up to a gap"),
        pytest.param("dd.dd0zz" + "dd0zzzzz", "dd.dd|0|dd" + "dd|0|ddddd", id="other parts"),
        pytest.param("dddddddd" + "zzz", "dddddddd|000", id="the disk's last block is short"),
    ],
)
def test_pieces_of_a_block(listed: str, expected: str) -> None:
    """A character is a sector, of which a block has eight."""
    found = extents(listed.replace("z", "d"), step=512)
    given_pieces = pieces(
        unit_of(found),
        memoryview(content_of(listed, 512)),
        grain=512,
        alignment=512,
        size=len(listed) * 512,
    )
    assert drawn_pieces(given_pieces, 512) == expected


def test_blocks_are_those_of_the_disk_not_of_the_buffer() -> None:
    content = bytearray(b"\xdd" * 3 * BLOCK)
    content[BLOCK : 2 * BLOCK] = bytes(BLOCK)
    unit = Unit(BLOCK // 2, 2 * BLOCK, (Extent(BLOCK // 2, 2 * BLOCK),))
    view = memoryview(content)[unit.offset : unit.end]
    assert pieces(unit, view, grain=BLOCK, alignment=512, size=MiB) == [
        Extent(BLOCK // 2, BLOCK // 2),
        Extent(BLOCK, BLOCK, zero=True),
        Extent(2 * BLOCK, BLOCK // 2),
    ]


@pytest.mark.parametrize("at", [0, 1, 7, 8, BLOCK // 2, BLOCK - 1])
def test_one_byte_makes_a_block_data(at: int) -> None:
    content = bytearray(3 * BLOCK)
    content[BLOCK + at] = 1
    unit = Unit(0, 3 * BLOCK, (Extent(0, 3 * BLOCK),))
    found = pieces(unit, memoryview(content), grain=BLOCK, alignment=BLOCK, size=3 * BLOCK)
    assert drawn_pieces(found, BLOCK) == "0|d|0"


@pytest.mark.parametrize("at", [0, 64 * KiB, MiB - 1])
def test_one_byte_in_a_large_unit_of_zeroes_is_seen(at: int) -> None:
    content = bytearray(MiB)
    content[at] = 1
    found = pieces(
        Unit(0, MiB, (Extent(0, MiB),)), memoryview(content), grain=1, alignment=1, size=MiB
    )
    assert [piece for piece in found if not piece.zero] == [Extent(at // BLOCK * BLOCK, BLOCK)]


def test_blocks_that_only_begin_with_zeroes_are_data() -> None:
    content = bytearray((bytes(BLOCK - 1) + b"\1") * 64)
    unit = Unit(0, len(content), (Extent(0, len(content)),))
    found = pieces(unit, memoryview(content), grain=BLOCK, alignment=1, size=len(content))
    assert found == [Extent(0, len(content))]


def test_a_read_only_buffer_will_do() -> None:
    unit = Unit(0, BLOCK, (Extent(0, BLOCK),))
    found = pieces(unit, memoryview(bytes(BLOCK)), grain=BLOCK, alignment=1, size=BLOCK)
    assert found == [Extent(0, BLOCK, zero=True)]


@settings(max_examples=150, deadline=None)
@given(
    disk=drawings("d0z"),
    kept=drawings("d."),
    step=st.sampled_from([512, 777]),
    tail=st.integers(0, 600),
    alignment=st.sampled_from([1, 100, 512, BLOCK, 2 * BLOCK]),
    cell=st.sampled_from([3 * KiB, BLOCK, 20_000, 64 * KiB]),
    grain=st.sampled_from([1, 512, BLOCK, 3 * BLOCK, 1 << 40]),
    seed=st.integers(0, 1),
)
def test_the_pieces_make_the_target_what_the_source_is(
    disk: str, kept: str, step: int, tail: int, alignment: int, cell: int, grain: int, seed: int
) -> None:
    """Plan, look through and replay: a model does each byte by itself."""
    found = extents(disk.replace("z", "d"), step=step)
    source = content_of(disk.replace("|", ""), step) + bytes(tail)
    if tail:
        found.append(Extent(len(source) - tail, tail))
    if seed:
        source = _sprinkled(source, found)
    size = len(source)
    wide = widen((e for e in extents(kept, step=step) if e.end <= size), alignment, size)
    listed = list(intersect(found, list(wide)))
    expected = bytearray(b"\xee" * size)  # what was on the target, and stays in the gaps
    target = bytearray(expected)
    for extent in listed:
        expected[extent.offset : extent.end] = source[extent.offset : extent.end]

    unit_size = -(-cell // alignment) * alignment
    for part in plan(listed, unit=unit_size, alignment=alignment, size=size):
        if isinstance(part, Zero):
            target[part.offset : part.end] = bytes(part.length)
            continue
        buffer = bytearray(b"\xaa" * part.length)  # gaps hold what was in the buffer before
        for extent in part.extents:
            low = extent.offset - part.offset
            buffer[low : low + extent.length] = source[extent.offset : extent.end]
        done = pieces(part, memoryview(buffer), grain=grain, alignment=alignment, size=size)
        assert done == list(_model(part, source, grain, alignment, size))
        for piece in done:
            assert piece.offset % alignment == 0
            assert piece.end % alignment == 0 or piece.end == size
            content = bytes(piece.length) if piece.zero else source[piece.offset : piece.end]
            target[piece.offset : piece.end] = content
        assert all(a.end < b.offset or a.zero != b.zero for a, b in pairwise(done))
    assert target == expected


def _sprinkled(source: bytearray, found: list[Extent]) -> bytearray:
    """A few single bytes of data, where they are hard to see."""
    for extent in found[::2]:
        if not extent.zero:
            source[random.Random(extent.offset).randrange(extent.offset, extent.end)] = 1
    return source


def _model(
    unit: Unit, source: bytearray, grain: int, alignment: int, size: int
) -> Iterator[Extent]:
    """The pieces of a unit, by marks on each byte: `.` not listed, `d` data, `0` zero."""
    base, content = unit.offset, source[unit.offset : unit.end]
    marks = bytearray(b"." * unit.length)
    for extent in unit.extents:
        low = extent.offset - base
        marks[low : low + extent.length] = (b"0" if extent.zero else b"d") * extent.length
    for run in re.finditer(rb"[d0]+", bytes(marks)):
        for block in range(-(base % BLOCK), run.end(), BLOCK):
            low, high = max(block, run.start()), min(block + BLOCK, run.end())
            if low < high and content.count(0, low, high) == high - low:
                marks[low:high] = b"0" * (high - low)
    for zeroes in re.finditer(rb"0+", bytes(marks)):
        low, high = zeroes.span()
        while (base + low) % alignment:
            low += 1
        while (base + high) % alignment and base + high != size:
            high -= 1
        if high - low < grain:
            low = high = zeroes.end()
        marks[zeroes.start() : low] = b"d" * (low - zeroes.start())
        marks[high : zeroes.end()] = b"d" * (zeroes.end() - high)
    for piece in re.finditer(rb"d+|0+", bytes(marks)):
        low, high = piece.span()
        yield Extent(base + low, high - low, zero=piece[0][:1] == b"0")
