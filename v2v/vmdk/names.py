"""Which files of a store a VMDK may name. Names are strangers' words.

A part of a disk must lie in the folder of the descriptor that names it, or below. So must a parent,
unless it is in one of the `roots`, as on an ESXi host, where a linked clone's base is in the folder
of another VM. Links count as what they lead to.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from functools import cached_property

from v2v.errors import SourceError
from v2v.image.names import last_part
from v2v.texts import clean
from v2v.vmdk.store import File, Store

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
MAX_COMPONENT, MAX_PATH = 255, 4096  # bytes
SHOWN = 300  # characters of a name in messages


class Names:
    def __init__(self, store: Store, roots: Sequence[str]) -> None:
        self.store = store
        self._given = roots

    @cached_property
    def _roots(self) -> tuple[str, ...]:
        return tuple(real for root in self._given if (real := self._real(root)))

    def _real(self, root: str) -> str | None:
        """None for a folder that is not there: nothing can be in it."""
        try:
            return self.store.real_path(root)
        except SourceError as exc:
            if exc.id != "image-file-missing":
                raise
            return None

    def part(self, image: str, name: str) -> tuple[str, File]:
        """The part of a disk that the descriptor at `image` calls so: real path, and file."""
        _check_plain(image, name)
        return self._opened(image, _beside(image, name), name, ())

    def parent(self, image: str, name: str) -> tuple[str, File]:
        """The parent of the disk whose descriptor is `image`; its CID tells whether it is the one.

        A path of another host, as after the VM's folder was moved, means the file beside.
        """
        moved = last_part(name)
        if _WINDOWS.match(name):
            _check_plain(image, moved)
            return self._opened(image, _beside(image, moved), name, ())
        _check_plain(image, name)
        try:
            return self._opened(image, _beside(image, name), name, self._roots)
        except SourceError as exc:
            if not name.startswith("/") or exc.id not in MAY_HAVE_MOVED:
                raise
            return self._moved(image, moved, exc)

    def _moved(self, image: str, name: str, instead: SourceError) -> tuple[str, File]:
        """The file beside; if it is not there, the error is that of the path that was named."""
        try:
            return self._opened(image, _beside(image, name), name, ())
        except SourceError as exc:
            raise (instead if exc.id == "image-file-missing" else exc) from None

    def _opened(self, image: str, path: str, name: str, roots: Sequence[str]) -> tuple[str, File]:
        try:
            real = self.store.real_path(path)
            if not any(_is_below(real, root) for root in (posixpath.dirname(image), *roots)):
                raise refused(image, name, "it lies outside of the disk's folder")
            return real, self.store.open(real)
        except SourceError as exc:
            if exc.id != "image-file-missing":
                raise
            raise SourceError(
                f"{clean(image)} needs the file {name[:SHOWN]!r}, which is not there",
                id="image-file-missing",
                hint=f"put it at {clean(path[:MAX_PATH])}",
            ) from exc


MAY_HAVE_MOVED = ("image-file-missing", "image-names-other-file")


def _beside(image: str, name: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(image), name))


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/")


def _check_plain(image: str, name: str) -> None:
    parts = name.split("/")
    if (
        ":" in parts[0]
        or "\\" in name
        or _CONTROL.search(name)
        or parts[-1] in ("", ".", "..")
        or len(name.encode()) > MAX_PATH
        or any(len(part.encode()) > MAX_COMPONENT for part in parts)
    ):
        raise refused(image, name, "it is not a plain file name")


def refused(image: str, name: str, why: str) -> SourceError:
    return SourceError(
        f"{clean(image)} refers to {name[:SHOWN]!r}: refused, because {why}",
        id="image-names-other-file",
        hint="if you trust this disk and mean that file: put the file into the disk's folder",
    )
