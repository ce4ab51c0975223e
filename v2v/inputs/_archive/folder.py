"""A folder with an unpacked OVA in it."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from v2v.errors import SourceError
from v2v.image.reader import FileReader
from v2v.inputs._archive import MAX_MEMBERS, Kind, Member, is_ovf, relative_name
from v2v.inputs._archive.stream import read_chunks


class Folder:
    """Files are looked for when they are asked for: there may be many others.

    `allowed` are files and folders elsewhere that links in it may lead to.
    """

    def __init__(self, path: Path, allowed: Sequence[Path] = ()) -> None:
        self.where = str(path)
        self.path = path
        self._allowed = (path.resolve(), *(one.resolve() for one in allowed))

    def find(self, name: str) -> Member | None:
        if relative_name(name) is None:
            return None
        path = self.path / name
        try:
            real = path.resolve(strict=True)
            found = real.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, RuntimeError) as exc:  # a loop of links is a RuntimeError
            raise self._unreadable(path, exc) from exc
        if not any(real == one or real.is_relative_to(one) for one in self._allowed):
            raise SourceError(
                f"{path} is a link to {real}: refused, because that is outside of the folder",
                id="ova-names-other-file",
                hint="if you trust this OVA and mean that file: -io allow-backing=PATH",
            )
        return Member(name, found.st_size, _kind(found.st_mode))

    def names(self) -> Iterable[str]:
        return [path.name for path in self._listed(self.path)]

    def ovfs(self) -> list[Member]:
        """Those in the folder itself; if there is none, those one folder further down."""
        here = self._listed(self.path)
        folders = [one for one in here if one.is_dir() and not one.is_symlink()]
        return self._ovfs(here) or self._ovfs(p for one in folders for p in self._listed(one))

    def chunks(self, found: Member) -> Iterator[bytes]:
        with FileReader(self.path / found.name) as reader:
            yield from read_chunks(reader, 0, found.size)

    def _ovfs(self, paths: Iterable[Path]) -> list[Member]:
        names = [str(one.relative_to(self.path)) for one in paths if is_ovf(one.name)]
        return [found for name in names if (found := self.find(name))]

    def _listed(self, folder: Path) -> list[Path]:
        try:
            return sorted(islice(folder.iterdir(), MAX_MEMBERS))
        except OSError as exc:
            raise self._unreadable(folder, exc) from exc

    def _unreadable(self, path: Path, exc: Exception) -> SourceError:
        return SourceError(
            f"{path}: cannot be read: {getattr(exc, 'strerror', None) or exc}",
            id="source-unreadable",
            hint="run v2v as a user that may read it",
        )


def _kind(mode: int) -> Kind:
    if stat.S_ISDIR(mode):
        return Kind.FOLDER
    return Kind.FILE if stat.S_ISREG(mode) else Kind.DEVICE
