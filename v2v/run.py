"""Run: everything a part of v2v needs to know about the job it works for.

A job is a folder: `journal` (what is finished), `overlay-N.qcow2` (what conversion wrote),
`log/` (what servers printed), `report.json`, `report.html`. Run gives the folder, the journal, a
short-lived folder for sockets, the event sink and the cancel token. It is passed to every call
that does work; there are no globals.
"""

from __future__ import annotations

import copy
import os
import secrets
import shutil
import string
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import platformdirs

from v2v import events
from v2v.cancel import Cancel
from v2v.errors import HostError, JobError
from v2v.events import Emit, Event
from v2v.journal import Journal
from v2v.types import Timing

T = TypeVar("T")

TMP_BYTES = 55  # leaves room for "/v2v-", a server's name, two random parts and "/s"
BANDWIDTH = "bandwidth"  # the file in a job's folder that says how fast it may read
JOB_ID_CHARACTERS = string.ascii_letters + string.digits + "-_."


def default_jobs_folder() -> Path:
    """$V2V_JOBS, /var/lib/v2v/jobs for root, ~/.local/state/v2v/jobs for others."""
    if chosen := os.environ.get("V2V_JOBS"):
        return Path(chosen).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/v2v/jobs")
    return platformdirs.user_state_path("v2v") / "jobs"


def unknown_job(folder: Path) -> JobError:
    """There is no job in this folder."""
    return JobError(
        f"{folder.name}: no such job in {folder.parent}",
        id="job-unknown",
        hint="`v2v jobs` lists them",
    )


def _make_tmp() -> Path:
    """A folder for sockets, whose paths hold 107 bytes: a long $TMPDIR is of no use."""
    short = len(os.fsencode(tempfile.gettempdir())) <= TMP_BYTES
    return Path(tempfile.mkdtemp(prefix="v2v-", dir=None if short else "/tmp"))  # noqa: S108


def remove_stale_tmp(folder: Path) -> None:
    """Remove the sockets that a killed run of the job in `folder` left."""
    link = folder / "tmp"
    if link.is_symlink():
        stale = link.readlink()
        if stale.name.startswith("v2v-"):
            shutil.rmtree(stale, ignore_errors=True)
        link.unlink(missing_ok=True)


class Run:
    """One execution of one job; a context manager that locks the job's folder."""

    def __init__(self, folder: Path, *, emit: Emit = events.ignore, cancel: Cancel | None = None):
        self.folder = folder
        self.job_id = folder.name
        self.cancel = cancel or Cancel()
        self.timings: list[Timing] = []
        self.reads_all = True  # False: only looked at, so what needs every byte is left out
        self._began = time.monotonic()
        self._emit = emit
        self._emitting = threading.RLock()
        self._thread = threading.local()  # `depth`: how many steps are under way in it
        self.journal = Journal(folder / "journal")
        try:
            remove_stale_tmp(folder)
            self.tmp = _make_tmp()
            # A killed run leaves it behind for the next one to remove.
            (folder / "tmp").symlink_to(self.tmp)
            (folder / "log").mkdir(exist_ok=True)
        except OSError as exc:
            self.journal.close()
            raise HostError(
                f"cannot make {exc.filename2 or exc.filename}: {exc.strerror}",
                id="job-folders",
                hint="see to the folder of jobs, and to $TMPDIR",
            ) from exc

    @classmethod
    def create(
        cls, jobs: Path, name: str, *, emit: Emit = events.ignore, cancel: Cancel | None = None
    ) -> Run:
        """Start a new job; its id is a time, the guest's name and a few random digits."""
        ascii_name = "".join(c if c in JOB_ID_CHARACTERS else "-" for c in name)
        safe = ascii_name[:40].strip(".-") or "vm"
        stamp = time.strftime("%Y%m%d-%H%M%S")
        folder = jobs / f"{stamp}-{safe}-{secrets.token_hex(2)}"
        try:
            folder.mkdir(parents=True, mode=0o700)
        except OSError as exc:
            raise HostError(
                f"cannot make the job folder {folder}: {exc.strerror}",
                id="jobs-folder",
                hint="choose another place with --jobs-dir or $V2V_JOBS",
            ) from exc
        try:
            return cls(folder, emit=emit, cancel=cancel)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    @classmethod
    def open(cls, folder: Path, *, emit: Emit = events.ignore, cancel: Cancel | None = None) -> Run:
        """Open the folder of a job that was started before."""
        if not (folder / "journal").is_file():
            raise unknown_job(folder)
        return cls(folder, emit=emit, cancel=cancel)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *exc: object) -> None:
        shutil.rmtree(self.tmp, ignore_errors=True)
        (self.folder / "tmp").unlink(missing_ok=True)  # it tells where; so it goes last
        self.journal.close()

    def part(self, *, cancel: Cancel | None = None, emit: Emit | None = None) -> Run:
        """The same run for a part of its work that has its own token, or tells somebody else."""
        part = copy.copy(self)
        part.cancel = cancel or self.cancel
        part._emit = emit or self._emit
        return part

    def emit(self, kind: type[Event], **values: Any) -> None:
        with self._emitting:  # disks are copied by several threads; a sink hears one at a time
            self._emit(kind(job=self.job_id, **values))

    def warn(self, text: str, *, id: str, hint: str | None = None) -> None:
        self.emit(events.Warned, id=id, text=text, hint=hint)

    @contextmanager
    def step(self, step: str, title: str) -> Iterator[None]:
        """A named part of the work, told to the user and timed for the report."""
        self.cancel.check()
        depth = getattr(self._thread, "depth", 0)
        self.emit(events.StepStarted, step=step, title=title, depth=depth)
        start = time.monotonic()
        self._thread.depth = depth + 1
        try:
            yield
        finally:  # a step that failed took its time too
            self._thread.depth = depth
            seconds = time.monotonic() - start
            self.timings.append(Timing(step, seconds, start - self._began, title, depth))
        self.emit(events.StepFinished, step=step, title=title, seconds=seconds, depth=depth)

    def once(self, step: str, title: str, kind: type[T], action: Callable[[], T]) -> T:
        """Do a durable step, unless this job has finished it before; give its result."""
        if step in self.journal:
            value = self.journal.get(step, kind)
            self.emit(events.StepFinished, step=step, title=title, seconds=0.0, reused=True)
            return value
        with self.step(step, title):
            value = action()
            self.journal.put(step, value)  # before the step is told to be finished
        return value
