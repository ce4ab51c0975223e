"""What the copy engine writes to."""

from __future__ import annotations

from typing import Protocol


class Sink(Protocol):
    """One target disk, open for writing.

    Calls come from one thread at a time unless `workers` says more. Offsets and lengths are bytes;
    a write is never larger than `max_request`. Errors are raised as v2v.errors.CopyError or OSError
    and belong to the range of the call.
    """

    request_size: int | None  # preferred bytes per write; None: the engine's choice
    max_request: int  # the largest write it can take
    alignment: int  # writes start at multiples of it, and end there or at the end of the disk
    workers: int  # how many threads may call it at once
    is_zero: bool  # the whole disk is known to read as zeroes before the copy

    def write(self, offset: int, buffer: memoryview) -> None: ...

    def zero(self, offset: int, length: int) -> None: ...

    def flush(self) -> None: ...
