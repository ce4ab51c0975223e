"""A target that differs from what was written is repaired; a crash in between loses nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.copy.copying import Target, Wrapped, memory, noise, shared
from v2v.copy.digests import CHUNK, Digests
from v2v.copy.engine import DiskCopy
from v2v.copy.ledger import Ledger
from v2v.copy.sinks import FileSink
from v2v.endpoint import Endpoint
from v2v.errors import CopyError
from v2v.extents import Extent
from v2v.types import CopyResult

SIZE = 4 * CHUNK
CHANGED = Extent(CHUNK, CHUNK)  # what the overlay holds


class Power(Exception):
    """It went off."""


class Spoiling(FileSink):
    """Keeps something else than it is given once, or from then on."""

    def __init__(self, target: Target, spoils: Callable[[int], bool]) -> None:
        """`spoils` says of each write, numbered from 0, whether it goes wrong."""
        super().__init__(target.fd, request_size=CHUNK, is_zero=False, size=SIZE)
        self._writes = 0
        self._spoils = spoils

    def write(self, offset: int, buffer: memoryview) -> None:
        super().write(offset, buffer)
        if self._spoils(self._writes):
            os.pwrite(self._fd, bytes([buffer[0] ^ 1]), offset)
        self._writes += 1


@pytest.fixture
def disks(tmp_path: Path) -> list[Endpoint]:
    """Source and overlay."""
    found = []
    for seed, name in enumerate(["source", "overlay"], 1):
        path = tmp_path / name
        path.write_bytes(noise(SIZE, seed=seed))
        found.append(Endpoint(uri=f"nbd+unix:///{name}", size=SIZE, file=path))
    return found


def converted(disks: list[Endpoint]) -> bytes:
    source, overlay = (disk.file.read_bytes() for disk in disks)
    return source[: CHANGED.offset] + overlay[CHANGED.offset : CHANGED.end] + source[CHANGED.end :]


def run(
    disks: list[Endpoint],
    target: Target,
    folder: Path,
    *,
    spoils: Callable[[int], bool] = lambda number: False,
    off: tuple[str, int] | None = None,
    verify: float = 1.0,
) -> CopyResult:
    """All of the source, then what the conversion changed. `off`: before which call power fails."""

    def before(name: str, number: int) -> None:
        if (name, number) == off:
            raise Power

    sink = Wrapped(Spoiling(target, spoils), before)
    options = shared(verify=verify, connections=1)
    with closing(Digests(folder / "digests", SIZE)) as digests:
        ledger = Ledger(folder / "ledger")
        copy = DiskCopy(0, SIZE, sink, options, ledger=ledger, digests=digests)
        copy.copy(disks[0], [Extent(0, SIZE)], phase="source")
        copy.copy(disks[1], [CHANGED], phase="overlay")
        return copy.finish()


@pytest.mark.parametrize("off", [("write", 5), ("flush", 2), ("write", 6), ("flush", 3)], ids=str)
def test_a_repair_that_was_interrupted_is_finished(disks, tmp_path: Path, off) -> None:
    """The overlay's chunk is spoilt, and written again from the source and from the overlay."""
    with memory(SIZE) as target:
        with pytest.raises(Power):
            run(disks, target, tmp_path, spoils=lambda number: number == 4, off=off)
        run(disks, target, tmp_path)
        assert target.content == converted(disks)


def test_what_was_found_wrong_is_not_forgotten_by_a_run_that_verifies_less(
    disks, tmp_path: Path
) -> None:
    with memory(SIZE) as target:
        with pytest.raises(CopyError, match="nor after they were written again"):
            run(disks, target, tmp_path, spoils=lambda number: number >= 3)
        run(disks, target, tmp_path, verify=0.01)
        assert target.content == converted(disks)
