"""Which parts of an overlay are its own, from qemu-nbd's depths."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from v2v import nbd_client
from v2v.cancel import Cancel
from v2v.endpoint import Endpoint
from v2v.errors import SourceError
from v2v.extents import Extent
from v2v.nbd_client import ALLOCATION_DEPTH, BASE_ALLOCATION, STATE_ZERO, STATUS_REQUEST

if TYPE_CHECKING:
    import nbd

OWN_DEPTH = 1  # the image that is served; 0: in none of the chain, 2 and more: in one below it


@dataclass(frozen=True, slots=True)
class Layer(Extent):
    """An extent of an overlay; `own` when it was written there and does not come from below."""

    own: bool = False


def layers(endpoint: Endpoint, *, cancel: Cancel | None = None) -> Iterator[Layer]:
    """What of an image that qemu-nbd serves with its depths is its own, and what is zero.

    QEMU asks the images below once per extent of theirs and context: 0.8 s for 32000 extents over
    NBD, where an overlay that is opened without what is below it answers in 1 ms.
    """
    handle = nbd_client.connect(endpoint, depths=True)
    try:
        yield from _merge_layers(_layers(endpoint.size, handle, cancel or Cancel()))
    except BaseException:
        nbd_client.hang_up(handle)
        raise
    handle.shutdown()


def _layers(size: int, handle: nbd.NBD, cancel: Cancel) -> Iterator[Layer]:
    """The answers of both contexts, cut where either of them changes."""
    offset = 0
    while offset < size:
        found = nbd_client.statuses(handle, offset, min(STATUS_REQUEST, size - offset), cancel)
        pairs = list(_zip_spans(found.get(BASE_ALLOCATION, []), found.get(ALLOCATION_DEPTH, [])))
        if not pairs:
            raise SourceError(
                f"the NBD server does not tell what was written from byte {offset}",
                id="nbd-no-layers",
                hint="see the servers' logs in the job's folder",
            )
        for told, flags, depth in pairs:
            if (span := min(told, size - offset)) > 0:
                yield Layer(offset, span, bool(flags & STATE_ZERO), own=depth == OWN_DEPTH)
            offset += span


def _zip_spans(
    one: list[tuple[int, int]], other: list[tuple[int, int]]
) -> Iterator[tuple[int, int, int]]:
    """(length, value of one, value of the other), as far as both lists go."""
    ones, others = iter(one), iter(other)
    left = right = (0, 0)
    while True:
        left = left if left[0] else next(ones, (0, 0))
        right = right if right[0] else next(others, (0, 0))
        span = min(left[0], right[0])
        if span == 0:
            return
        yield span, left[1], right[1]
        left, right = (left[0] - span, left[1]), (right[0] - span, right[1])


def _merge_layers(layers: Iterator[Layer]) -> Iterator[Layer]:
    last: Layer | None = None
    for layer in layers:
        if last is not None and (last.zero, last.own) == (layer.zero, layer.own):
            last = Layer(last.offset, last.length + layer.length, last.zero, last.own)
            continue
        if last is not None:
            yield last
        last = layer
    if last is not None:
        yield last
