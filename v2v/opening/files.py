"""Disks as raw files in a folder, by FUSE."""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from v2v import nbdfuse
from v2v.endpoint import Endpoint
from v2v.errors import UsageError
from v2v.opening.sockets import cannot_make, make_folder, remove_folder
from v2v.run import Run

SUFFIX = ".img"
OURS = re.compile(r".+-sd[a-z]+\.img", re.DOTALL)


@contextmanager
def prepared(folder: Path, run: Run) -> Iterator[Path]:
    """The folder, empty, for us alone. If it was not there, it goes at the end."""
    made = make_folder(folder)
    try:
        with _locked(folder):
            _clean(folder, run)
            yield folder
    finally:
        if made:
            remove_folder(folder)


@contextmanager
def mounted(
    paths: Sequence[Path], served: Sequence[Endpoint], run: Run
) -> Iterator[tuple[Path, ...]]:
    """Each endpoint as the raw file that `paths` names; they go at the end."""
    with ExitStack() as stack:
        for index, (path, endpoint) in enumerate(zip(paths, served, strict=True)):
            stack.enter_context(_empty_file(path))
            stack.enter_context(nbdfuse.mount(endpoint, path, run=run, name=f"fuse-{index}"))
        yield tuple(paths)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """A lock that ends with us, so that what is found in the folder is of nobody who lives."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        raise cannot_make(folder, exc) from exc
    try:
        _lock(fd, folder)
        yield
    finally:
        os.close(fd)


def _lock(fd: int, folder: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        raise UsageError(
            f"{folder} is in use by another `v2v open`",
            id="open-folder-in-use",
            hint="choose another folder",
        ) from exc


def _clean(folder: Path, run: Run) -> None:
    """Take away what a v2v that was killed left there; refuse everything else."""
    for path in nbdfuse.mounted_below(folder):
        if nbdfuse.is_dead(path):
            nbdfuse.detach(path)
            run.warn(f"{path}: a mount that an earlier v2v left was removed", id="open-stale-mount")
    left = list(folder.iterdir())
    if strangers := [path for path in left if not _is_placeholder(path)]:
        raise UsageError(
            f"{folder} is not empty: {strangers[0].name} is there",
            id="open-folder-not-empty",
            hint="--fuse takes an empty folder, or makes one",
        )
    for path in left:
        path.unlink()


def _is_placeholder(path: Path) -> bool:
    """An empty file that something was mounted over; it never held anything."""
    status = path.lstat()
    return bool(OURS.fullmatch(path.name)) and stat.S_ISREG(status.st_mode) and not status.st_size


@contextmanager
def _empty_file(path: Path) -> Iterator[None]:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as exc:
        raise cannot_make(path, exc) from exc
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
