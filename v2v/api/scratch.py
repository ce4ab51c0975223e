"""Jobs that leave nothing: to look at a VM takes overlays and servers, too."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from v2v import journal
from v2v.cancel import Cancel
from v2v.events import Emit
from v2v.run import Run, default_jobs_folder, remove_stale_tmp

NO_JOURNAL_SECONDS = 60.0  # a folder without a journal is older than this if its v2v was killed


@contextmanager
def scratch_run(
    jobs: Path | None, emit: Emit, cancel: Cancel | None, *, name: str = "inspect"
) -> Iterator[Run]:
    """A job that leaves nothing, and takes with it what a killed one of its kind left."""
    scratch = (jobs or default_jobs_folder()) / ".scratch"
    for stale in scratch.glob("*"):
        if _is_stale(stale):
            _remove_scratch(stale)
    with Run.create(scratch, name, emit=emit, cancel=cancel) as run:
        run.reads_all = False
        try:
            yield run
        finally:
            shutil.rmtree(run.tmp, ignore_errors=True)
            _remove_scratch(run.folder)


def _is_stale(folder: Path) -> bool:
    """Whether nobody works in it any more. One that has no journal yet, or one that was just made
    and is not locked yet, is given time for it."""
    path = folder / "journal"
    try:
        if path.exists():
            written = path.stat().st_size > 0  # by one that has the lock, or had it
            if written or journal.is_locked(path):
                return not journal.is_locked(path)
        return time.time() - folder.stat().st_mtime > NO_JOURNAL_SECONDS
    except FileNotFoundError:
        return False  # another one has removed it


def _remove_scratch(folder: Path) -> None:
    """The journal goes last: what has one is found again, should we be killed on the way."""
    with suppress(FileNotFoundError):  # maybe another one does it too
        remove_stale_tmp(folder)
        for path in [path for path in folder.iterdir() if path.name != "journal"]:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
