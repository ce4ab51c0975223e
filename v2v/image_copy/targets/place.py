"""A block device or an NBD export as a target: it is there already, and takes raw disks."""

from __future__ import annotations

from contextlib import AbstractContextManager

from v2v.copy.sinks import Sink
from v2v.image_copy.targets._base import Shape, Target
from v2v.run import Run
from v2v.targets import Opened, Place
from v2v.types import Source


class PlaceTarget(Target):
    def __init__(self, place: Place, shape: Shape) -> None:
        super().__init__(place.shown, shape)
        self.place = place

    def check(self, source: Source, *, force: bool, run: Run) -> None:
        self._only_raw()
        self.place.check(source)

    def open(self, disk: Opened, run: Run) -> AbstractContextManager[Sink]:
        return self.place.open(disk, run, sparse=self.shape.sparse)
