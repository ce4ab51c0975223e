"""Which parts of a converted disk come from the source, and which from its overlay.

What the conversion wrote is the overlay's own, in whole clusters. The rest is read from the source
itself: it is served by fewer programs, never changes, and may be copied before the conversion ends.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from heapq import merge as merge_sorted

from v2v import overlay
from v2v.copy.engine import measure
from v2v.endpoint import Endpoint
from v2v.errors import Cancelled, V2VError
from v2v.extents import Extent, ExtentMap, data_bytes, intersect, subtract, widen
from v2v.output import copy_options
from v2v.run import Run

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OpenDisk:
    """A source disk, served read-only, and the writable overlay over it."""

    source: Endpoint
    overlay: Endpoint


class Parts:
    """The parts of disk `index`, as of the last look."""

    def __init__(self, index: int, disk: OpenDisk, run: Run) -> None:
        self._index = index
        self._disk = disk
        self._run = run
        self._own: list[Extent] = []

    def look(self) -> None:
        """See what the conversion has written."""
        self._own = overlay.own_extents(self._disk.overlay, self._index, self._run)

    def peek(self) -> None:
        """The same while the conversion goes on; what is not seen is only copied twice."""
        try:
            self.look()
        except Cancelled:
            raise
        except V2VError as exc:
            log.info("disk %d: %s", self._index + 1, exc)

    @cached_property
    def _source(self) -> ExtentMap:
        stall = copy_options(self._run).stall_timeout
        return measure(self._disk.source, self._run.cancel, stall=stall)

    def data(self, grain: int) -> int:
        """Bytes of data that the disk has, in whole `grain`s of it."""
        parts = merge_sorted(subtract(self._source, self._own), self._own, key=_offset)
        data = (extent for extent in parts if not extent.zero)
        return data_bytes(widen(data, grain, self._disk.source.size))

    def of_source(self, grain: int) -> Iterable[Extent]:
        """What is to be read from the source: all but the `grain`s that the overlay has a part of.

        `grain` is what must be written, or hashed, at once.
        """
        return subtract(self._source, self._wide(grain)) if self._own else self._source

    def of_overlay(self, grain: int) -> Iterator[Extent]:
        """What is to be read from the overlay: what it has, and what else is in these grains."""
        between = subtract(self._wide(grain), self._own)
        others = intersect(self._source, between)
        return merge_sorted(self._own, others, key=_offset)

    def _wide(self, grain: int) -> Iterator[Extent]:
        return widen(self._own, grain, self._disk.source.size)


def _offset(extent: Extent) -> int:
    return extent.offset
