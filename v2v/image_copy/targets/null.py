"""null: as a target: everything is read, nothing is kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from v2v.copy.sinks import NullSink, Sink
from v2v.errors import UsageError
from v2v.image_copy.targets._base import Shape, Target
from v2v.run import Run
from v2v.targets import Opened
from v2v.types import Source


class NullTarget(Target):
    marked = False
    kept = False

    def __init__(self, shape: Shape) -> None:
        super().__init__("null:", shape)

    def check(self, source: Source, *, force: bool, run: Run) -> None:
        self._only_raw()

    @contextmanager
    def open(self, disk: Opened, run: Run) -> Iterator[Sink]:
        if disk.options.verify:
            raise UsageError(
                "null: keeps nothing that --verify could read back",
                id="option-conflict",
                hint="`v2v checksum` gives the checksum of an image",
            )
        yield NullSink(size=disk.size)
