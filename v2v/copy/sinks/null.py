"""No disk at all."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from v2v.extents import Extent
from v2v.types import GiB, KiB

MAXIMUM = 1 * GiB
GRAIN = 64 * KiB
WORKERS = 16
LARGEST = 2**63 - 1  # the largest disk there can be


class NullSink:
    """Takes everything and keeps nothing. `size` is the disk's, for `extents`."""

    max_request = MAXIMUM
    alignment = 1
    zero_grain = GRAIN
    workers = WORKERS
    ordered = False
    is_zero = True

    def __init__(self, *, request_size: int | None = None, size: int = LARGEST) -> None:
        self.request_size = request_size
        self._size = size

    def write(self, offset: int, buffer: memoryview) -> None:
        """Forget it."""

    def zero(self, offset: int, length: int) -> None:
        """Nothing is kept."""

    def flush(self) -> None:
        """Nothing is kept."""

    def read_back(self, offset: int, buffer: memoryview) -> None:
        raise OSError(errno.EOPNOTSUPP, "nothing is kept, so nothing can be read back")

    def extents(self) -> Iterator[Extent]:
        yield Extent(0, self._size, zero=True)

    def reopen(self) -> None:
        """There is no connection that could be lost."""
