"""Finds the zeroes in what was read, so that they need not be written. Nothing here does.

A look at one word of each block is enough for most data; only a block that begins with zeroes is
looked through.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from v2v.copy.plan import Unit
from v2v.extents import Extent
from v2v.types import KiB

BLOCK = 4 * KiB  # zeroes are looked for in whole blocks: what filesystems keep
ZEROES = bytes(64 * KiB)  # compared at once; small enough to stay in the processor's cache
WORD = 8  # bytes of a "Q"

Span: TypeAlias = tuple[int, int]  # [start, end) of the disk


def pieces(
    unit: Unit, buffer: memoryview, *, grain: int, alignment: int, size: int
) -> list[Extent]:
    """What to write and what to zero (`zero`) of a unit that was read; neighbours are joined.

    `buffer` holds the bytes from the unit's offset on, zeroes where an extent is a hole. Zeroes,
    holes or found in the data, are zeroed if there are at least `grain` bytes of them in whole
    multiples of `alignment`, and written if not. `size` is the disk's end, which counts as aligned.
    """
    if _is_plain(unit, buffer, max(grain, 1), alignment, size):
        return list(unit.extents)
    found: list[Extent] = []
    for run in runs(unit.extents):
        start, end = run[0].offset, run[-1].end
        zeroes = _zeroes(run, buffer, unit.offset)
        position = start
        for low, high in _usable(zeroes, max(grain, 1), alignment, size):
            if position < low:
                found.append(Extent(position, low - position))
            found.append(Extent(low, high - low, zero=True))
            position = high
        if position < end:
            found.append(Extent(position, end - position))
    return found


def _is_plain(unit: Unit, buffer: memoryview, grain: int, alignment: int, size: int) -> bool:
    """Whether the data is whole blocks that begin with something, and every hole is worth it.

    Most units are so. To know it takes one look at all the blocks together.
    """
    if unit.offset % BLOCK or unit.length % BLOCK:
        return False
    words = buffer[: unit.length].cast("Q")[:: BLOCK // WORD].tolist()
    for extent in unit.extents:
        start, end = extent.offset, extent.offset + extent.length
        if extent.zero:
            if extent.length < grain or start % alignment or (end % alignment and end != size):
                return False
            continue
        first, last = (start - unit.offset) // BLOCK, (end - unit.offset) // BLOCK
        if start % BLOCK or end % BLOCK or 0 in words[first:last]:
            return False
    return True


def runs(extents: Sequence[Extent]) -> Iterator[Sequence[Extent]]:
    """The extents, cut where there are gaps."""
    first = 0
    for index in range(1, len(extents)):
        if extents[index - 1].end != extents[index].offset:
            yield extents[first:index]
            first = index
    yield extents[first:]


def _usable(zeroes: Iterable[Span], grain: int, alignment: int, size: int) -> Iterator[Span]:
    """What is left of the spans in whole blocks of the target, where that is worth a request."""
    for low, high in zeroes:
        low = -(-low // alignment) * alignment
        if high != size:
            high = high // alignment * alignment
        if high - low >= grain:
            yield low, high


def _zeroes(run: Sequence[Extent], buffer: memoryview, base: int) -> Iterator[Span]:
    """The zeroes of extents without gaps between them, in order, as long as they can be."""
    start = end = run[0].offset
    for low, high in _spans(run, buffer, base):
        if low > end:
            if start < end:
                yield start, end
            start = low
        end = max(end, high)
    if start < end:
        yield start, end


def _spans(run: Sequence[Extent], buffer: memoryview, base: int) -> Iterator[Span]:
    """Holes, and blocks of zeroes; they may touch, and overlap where a block holds both kinds.

    Buffer and disk differ by `base`.
    """
    start, end = run[0].offset, run[-1].end
    for extent in run:
        if extent.zero:
            yield extent.offset, extent.end
        else:
            # Whole blocks, for a hole next to the data may be the rest of a block of zeroes.
            low = max(extent.offset // BLOCK * BLOCK, start)
            high = min(-(-extent.end // BLOCK) * BLOCK, end)
            yield from _find(low, high, buffer, base)


def _find(low: int, high: int, buffer: memoryview, base: int) -> Iterator[Span]:
    """The blocks of zeroes in [low, high); the first and last block may be cut off."""
    first, last = -(-low // BLOCK) * BLOCK, high // BLOCK * BLOCK
    if first > last:  # within one block
        first = last = high
    if low < first and all_zero(buffer[low - base : first - base]):
        yield low, first
    for start, end in _find_blocks(buffer[first - base : last - base]):
        yield first + start, first + end
    if last < high and all_zero(buffer[last - base : high - base]):
        yield last, high


def _find_blocks(view: memoryview) -> Iterator[Span]:
    """The blocks of zeroes in whole blocks, as places in `view`."""
    words = view.cast("Q")[:: BLOCK // WORD].tolist()
    if 0 not in words:
        return
    if not any(words) and all_zero(view):
        yield 0, len(view)
        return
    for index, word in enumerate(words):
        start = index * BLOCK
        if not word and all_zero(view[start : start + BLOCK]):
            yield start, start + BLOCK


def all_zero(view: memoryview) -> bool:
    """Compares in place, without a copy, and only up to the first difference."""
    if len(view) <= len(ZEROES):
        return ZEROES.startswith(view)
    step = len(ZEROES)
    return all(ZEROES.startswith(view[at : at + step]) for at in range(0, len(view), step))
