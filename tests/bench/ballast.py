"""Memory that stays with this machine from one round to the next.

A virtual machine may give free memory back to its host within seconds, and getting it again costs
ten times what using it does. So files of a finished round stay until the next begins, and are
removed right before it: its own pages then come from there.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from v2v.types import MiB

BLOCK = b"\xa5" * MiB


class Ballast:
    """Files on a tmpfs that are in the way of nobody: `release` them, then use the memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: list[Path] = []
        self._numbers = itertools.count()

    def keep(self, file: Path) -> None:
        """Take over a file that is not needed any more."""
        if file.parent != self.folder:
            size = _allocated(file)
            file.unlink()
            self._grow(size)
        else:
            self._files.append(file.rename(self._name()))

    def release(self, size: int) -> None:
        """Set `size` bytes free, and little more."""
        held = sum(_allocated(file) for file in self._files)
        self._grow(size - held)
        while size > 0 and self._files:
            file = self._files.pop()
            allocated = _allocated(file)
            if allocated >= 2 * size:
                os.truncate(file, int(file.stat().st_size * (1 - size / allocated)))
                self._files.append(file)
            else:
                file.unlink()
            size -= allocated

    def _grow(self, size: int) -> None:
        if size > 0:
            name = self._name()
            with name.open("wb", buffering=0) as out:
                for _ in range(0, size, MiB):
                    out.write(BLOCK)
            self._files.append(name)

    def _name(self) -> Path:
        return self.folder / f"ballast-{next(self._numbers)}"


def _allocated(file: Path) -> int:
    return file.stat().st_blocks * 512
