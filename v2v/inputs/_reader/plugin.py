"""The script that nbdkit's Python plugin runs: order=FILE says what to read.

It is no module of v2v, which only names it: nbdkit calls these functions, from many threads. All
of its own output goes into its log.
"""

from __future__ import annotations

from pathlib import Path

import nbdkit

from v2v.inputs._reader import order as files
from v2v.inputs._reader.served import Served
from v2v.types import MiB

API_VERSION = 2

BLOCK_SIZES = (1, 4096, 32 * MiB)  # smallest, preferred, largest request
HOLE = nbdkit.EXTENT_HOLE | nbdkit.EXTENT_ZERO

_order: files.Order | None = None
_served: Served | None = None


def config(key: str, value: str) -> None:
    global _order
    if key != "order":
        raise ValueError(f"unknown parameter: {key}")
    _order = files.read(Path(value), files.Order)


def thread_model() -> int:
    model: int = nbdkit.THREAD_MODEL_PARALLEL
    return model


def get_ready() -> None:
    """Before it listens: who waits for that hears of errors at once. It never forks (-f)."""
    global _served
    assert _order is not None  # noqa: S101
    _served = Served(_order)


def cleanup() -> None:
    if _served is not None:
        _served.close()


def open(readonly: bool) -> Served:
    assert _served is not None  # noqa: S101
    return _served


def get_size(served: Served) -> int:
    return served.size


def block_size(served: Served) -> tuple[int, int, int]:
    return BLOCK_SIZES


def can_write(served: Served) -> bool:
    return False


def can_multi_conn(served: Served) -> bool:
    return True


def can_extents(served: Served) -> bool:
    return True


def pread(served: Served, buffer: memoryview, offset: int, flags: int) -> None:
    served.read_into(offset, buffer)


def extents(served: Served, count: int, offset: int, flags: int) -> list[tuple[int, int, int]]:
    """No generator: nbdkit does not see the errors of one, and complains of an empty answer."""
    found = served.extents(offset, count)
    return [(one.offset, one.length, HOLE if one.zero else 0) for one in found]
