"""One disk as the process of nbdkit holds it: open, for all its connections at once."""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

from v2v.cancel import Cancel
from v2v.errors import Cancelled, SourceError, V2VError
from v2v.extents import Extent
from v2v.inputs._reader import order as files
from v2v.inputs._reader.order import Failed, Order, Ready
from v2v.inputs._reader.stores import open_store
from v2v.types import GiB
from v2v.vmdk import open_disk

log = logging.getLogger(__name__)

STATUS_BYTES = 1 * GiB  # looked at for one question about extents, at most
STATUS_EXTENTS = 16_384  # in one answer: 4 MiB of answer hold 500,000, but others wait meanwhile
STATUS_SECONDS = 1.0  # after which an answer ends, wherever it is
GOODBYE_SECONDS = 2.0
MOST_FAILURES = 1000  # that are remembered


class Served:
    """Opens at once; V2VError if that cannot be. `read_into` and `extents` are for any thread."""

    def __init__(self, order: Order) -> None:
        self._folder = order.folder
        self._cancel = Cancel()
        self._failures = Failures(order.folder / files.FAILED)
        self._stack = ExitStack()
        threading.Thread(target=self._watch, args=(order.stop,), daemon=True).start()
        try:
            self._open(order)
        except BaseException as exc:
            self._failures.add(0, 0, exc)
            self._stack.close()
            raise

    def _open(self, order: Order) -> None:
        recipe = order.recipe
        store = open_store(recipe, cancel=self._cancel, tell=self._tell)
        self._store = self._stack.enter_context(store)
        self._disk = open_disk(self._store, recipe.path, roots=recipe.roots)
        self.size = self._disk.size
        files.write(self._folder / files.READY, Ready(self._store.request_size))

    def read_into(self, offset: int, buffer: memoryview) -> None:
        try:
            self._disk.read_into(offset, buffer)
        except BaseException as exc:
            self._failures.add(offset, len(buffer), exc)
            raise
        self._failures.healed(offset, len(buffer))

    def extents(self, offset: int, length: int) -> list[Extent]:
        """From `offset` on, at least one; maybe not all of the range."""
        length = min(length, STATUS_BYTES, self.size - offset)
        end = time.monotonic() + STATUS_SECONDS
        found = []
        for extent in islice(self._disk.extents(offset, length), STATUS_EXTENTS):
            found.append(extent)
            if time.monotonic() > end:
                break
        return found or [Extent(offset, length)]  # nobody knows: it is to be read

    def close(self) -> None:
        """Say goodbye to a host that listens; of one that does not, the end of this process is all
        that it may notice."""
        self._cancel.cancel()
        closing = threading.Thread(target=self._stack.close, daemon=True)
        closing.start()
        closing.join(GOODBYE_SECONDS)
        if closing.is_alive():
            os._exit(0)

    def _tell(self, text: str) -> None:
        files.append(self._folder / files.TOLD, text)

    def _watch(self, stop: int) -> None:
        """Give up what waits for the other host when v2v wants no more of it."""
        os.read(stop, 1)
        self._cancel.cancel()


class Failures:
    """What could not be read, in a file. What can be read later, because somebody tried again, is
    taken out: it is not why a job failed."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._known: dict[int, tuple[int, Failed]] = {}  # by offset: where it ends, why

    def add(self, offset: int, length: int, exc: BaseException) -> None:
        if isinstance(exc, Cancelled):
            return
        if not isinstance(exc, V2VError):
            log.exception("reading at byte %d", offset)
            exc = SourceError(f"reading at byte {offset} failed: {exc!r}", id="source-read")
        with self._lock:
            if len(self._known) < MOST_FAILURES:
                self._known.setdefault(offset, (offset + length, Failed.of(exc)))
            self._write()

    def healed(self, offset: int, length: int) -> None:
        if not self._known:  # so that it costs nothing
            return
        stop = offset + length
        with self._lock:
            for start, (end, why) in tuple(self._known.items()):
                if offset <= start < stop:
                    del self._known[start]
                    if stop < end:  # who tries again may do so in smaller pieces
                        self._known.setdefault(stop, (end, why))
            self._write()

    def _write(self) -> None:
        if self._known:
            _, failed = next(iter(self._known.values()))
            files.write(self._file, failed)
        else:
            self._file.unlink(missing_ok=True)
