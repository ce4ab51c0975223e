"""Lists of extents as drawings, a character for each step of a disk, and as models of every byte.

`d` is data, `0` a hole, `.` is not listed, `|` begins a new extent where the kind stays the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from hypothesis import strategies as st

from v2v.extents import Extent

RUNS, RUN = 16, 12  # at most so many runs of so many characters
SIZE = RUNS * RUN  # bytes of the largest disk that hypothesis draws


def extents(drawing: str, *, at: int = 0, step: int = 1) -> list[Extent]:
    """The extents of a drawing whose first character stands for `step` bytes at `at`."""
    found, offset = [], at
    for part in re.findall(r"d+|0+|\.+", drawing):
        if part[0] != ".":
            found.append(Extent(offset, len(part) * step, part[0] == "0"))
        offset += len(part) * step
    return found


def drawn(found: Iterable[Extent], size: int) -> str:
    """A character for each byte, without `|`. Fails when extents overlap or are out of order."""
    drawing, position = "", 0
    for extent in found:
        assert position <= extent.offset
        drawing += "." * (extent.offset - position) + "d0"[extent.zero] * extent.length
        position = extent.end
    assert position <= size
    return drawing + "." * (size - position)


def drawings(kinds: str) -> st.SearchStrategy[str]:
    """Drawings of these kinds, with runs of them and extents that are not joined."""
    run = st.builds(
        lambda kind, length, border: kind * length + border,
        st.sampled_from(kinds),
        st.integers(1, RUN),
        st.sampled_from(["", "|"]),
    )
    return st.lists(run, max_size=RUNS).map("".join)


def plain(drawing: str, size: int = SIZE) -> str:
    """A character for each byte of a disk of `size` bytes."""
    return drawing.replace("|", "").ljust(size, ".")[:size]
