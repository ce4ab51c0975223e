"""Stores of local files that count what is asked of them, and that are as slow as a link."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from v2v.extents import Extent
from v2v.vmdk import LocalStore
from v2v.vmdk.local import LocalFile


class CountingFile:
    """Tells its store of each read before it is made."""

    def __init__(self, file: LocalFile, store: CountingStore) -> None:
        self.name, self.size, self.version = file.name, file.size, file.version
        self._file, self._store = file, store

    def read(self, offset: int, length: int) -> bytes:
        self._store.on_read(self.name, offset, length)
        return self._file.read(offset, length)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self._store.on_read(self.name, offset, len(buffer))
        self._file.read_into(offset, buffer)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        self._store.questions += 1
        return self._file.extents(offset, length)


class CountingStore:
    """Local files, with every read written down: (path, offset, length)."""

    request_size = LocalStore.request_size

    def __init__(self, parallel: int = 1) -> None:
        self.parallel = parallel
        self.asked: list[tuple[str, int, int]] = []
        self.questions = 0  # for extents
        self._local = LocalStore()
        self._lock = threading.Lock()

    def open(self, path: str) -> CountingFile:
        return CountingFile(self._local.open(path), self)

    def real_path(self, path: str) -> str:
        return self._local.real_path(path)

    def on_read(self, path: str, offset: int, length: int) -> None:
        with self._lock:
            self.asked.append((path, offset, length))

    @property
    def reads(self) -> int:
        return len(self.asked)

    @property
    def bytes_read(self) -> int:
        return sum(length for _, _, length in self.asked)

    def forget(self) -> None:
        self.asked, self.questions = [], 0

    def __enter__(self) -> CountingStore:
        return self

    def __exit__(self, *exc: object) -> None:
        self._local.__exit__(*exc)


class SlowStore(CountingStore):
    """Every read takes so many seconds more."""

    def __init__(self, delay: float, parallel: int = 16) -> None:
        super().__init__(parallel)
        self._delay = delay

    def on_read(self, path: str, offset: int, length: int) -> None:
        super().on_read(path, offset, length)
        time.sleep(self._delay)
