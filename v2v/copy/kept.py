"""Whether a target still holds what was copied to it before: it may be another disk by now."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from v2v.copy.ledger import Ledger
from v2v.copy.sinks import Sink
from v2v.extents import Extent, intersect
from v2v.types import KiB

SAMPLE = 64 * KiB  # compared in one place; what every target can read
SAMPLES = 16  # places compared
ENOUGH = 10_000  # pieces of data to choose them from


def check_kept(
    ledger: Ledger, extents: Iterable[Extent], read: Callable[[int, int], bytes], sink: Sink
) -> int | None:
    """Compare some of what the ledger calls safe with the source; where they differ first.

    extents: what the target has from the source. A server may have got another disk meanwhile,
    under the same address.
    """
    safe = ledger.done("source")
    data = list(islice((one for one in intersect(extents, safe) if not one.zero), ENOUGH))
    for extent in data[:: -(-len(data) // SAMPLES) or 1]:
        offset = -(-extent.offset // SAMPLE) * SAMPLE
        if offset + SAMPLE > extent.end:
            continue
        there = memoryview(bytearray(SAMPLE))
        sink.read_back(offset, there)
        if read(offset, SAMPLE) != there:
            return offset
    return None
