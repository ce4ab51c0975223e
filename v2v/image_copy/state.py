"""What is kept of a copy that has not ended, so that it can go on: one folder for a pair of source
and target, `.copies/ID` where jobs are kept.

The folder is a v2v.run.Run: a journal of what was asked for and found, the ledger of what is safe
on the target, digests for --verify, and the servers' logs. It is removed when the copy is complete.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import TypeVar, cast

import msgspec

from v2v import journal, options
from v2v.cancel import Cancel
from v2v.copy.ledger import Ledger
from v2v.errors import HostError, JobError, UsageError
from v2v.events import Emit
from v2v.image_copy.targets import Shape
from v2v.run import Run, default_jobs_folder
from v2v.types import Allocation, CopyResult, DiskFormat, Source

COPIES = ".copies"
SCRATCH = ".scratch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked for; None is what was left open. What was begun has no None that matters."""

    source: str  # an absolute path or an address
    target: str
    input: dict[str, str] = field(default_factory=dict)  # words of the input, as {"-if": "raw"}
    format: DiskFormat | None = None
    compressed: bool | None = None
    allocation: Allocation | None = None
    verify: bool | None = None  # whether digests are kept
    force: bool = False

    def settled(self) -> Request:
        """With the defaults of what was left open."""
        return replace(
            self,
            format=self.format or DiskFormat.RAW,
            compressed=bool(self.compressed),
            allocation=self.allocation or Allocation.SPARSE,
            verify=bool(self.verify),
        )

    def shape(self) -> Shape:
        known = self.settled()
        return Shape(
            known.format or DiskFormat.RAW,
            bool(known.compressed),
            known.allocation or Allocation.SPARSE,
        )

    def id(self, jobs: Path) -> str:
        """Of the pair of source and target, where jobs are kept in `jobs`."""
        words = json.dumps([self.source, self.target, str(jobs.resolve())])
        return hashlib.sha256(words.encode()).hexdigest()[:16]


E = TypeVar("E", bound=StrEnum)

FLAGS = {
    "format": "-of",
    "compressed": "--compressed",
    "allocation": "-oa",
    "verify": "--verify",
}


def choice(flag: str, word: str | None, choices: type[E]) -> E | None:
    """The member that a word names."""
    return None if word is None else cast(E, options.convert(word, choices, flag))


class State:
    """The folder of one copy, open and locked."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.ledger = Ledger(run.folder / "ledger")

    @property
    def begun(self) -> bool:
        """The target may have been written."""
        return "begun" in self.run.journal

    @property
    def result(self) -> CopyResult | None:
        """Of a copy that lacks its final name only."""
        found = self.run.journal
        return found.get("result", CopyResult) if "result" in found else None

    def request(self) -> Request:
        return self.run.journal.get("begun", Request)

    def source(self) -> Source:
        return self.run.journal.get("source", Source)

    def size(self) -> int:
        return self.run.journal.get("size", int)

    def begin(self, request: Request, source: Source, size: int) -> None:
        """The target is blank; what is kept of an earlier one, that v2v was killed while it
        forgot, does not count.
        """
        self._clear()
        self.run.journal.put("source", source)
        self.run.journal.put("size", size)
        self.run.journal.put("begun", request)

    def forget(self) -> None:
        """Nothing is kept of the target any more."""
        self.run.journal.forget(keep=())
        self._clear()

    def _clear(self) -> None:
        self.ledger.clear()
        self.digests.unlink(missing_ok=True)

    @property
    def digests(self) -> Path:
        return self.run.folder / "digests"


@contextmanager
def opened(
    request: Request, jobs: Path | None, emit: Emit, cancel: Cancel | None
) -> Iterator[State]:
    """The state of this pair, new or kept. Removed at the end if nothing was begun."""
    jobs = jobs or default_jobs_folder()
    folder = jobs / COPIES / request.id(jobs)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as exc:
        raise HostError(
            f"cannot make {folder}: {exc.strerror}",
            id="jobs-folder",
            hint="choose another place with --jobs-dir or $V2V_JOBS",
        ) from exc
    try:
        run = Run(folder, emit=emit, cancel=cancel)
    except JobError as exc:
        if exc.id != "job-running":
            raise
        raise JobError(
            f"{request.source} is being copied to {request.target} already",
            id="job-running",
            hint="wait for that, or stop it first",
        ) from exc
    with run:
        state = State(run)
        try:
            yield state
        finally:
            if not state.begun:
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def scratch(jobs: Path | None, emit: Emit, cancel: Cancel | None) -> Iterator[Run]:
    """A run that leaves nothing, for what keeps nothing."""
    with Run.create(
        (jobs or default_jobs_folder()) / SCRATCH, "copy", emit=emit, cancel=cancel
    ) as run:
        try:
            yield run
        finally:
            shutil.rmtree(run.folder)


def merged(asked: Request, kept: Request) -> Request:
    """What is resumed: as it was begun. Refuses what contradicts it."""
    for name, flag in FLAGS.items():
        mine, theirs = getattr(asked, name), getattr(kept, name)
        if mine is not None and mine != theirs:
            raise UsageError(
                f"{flag}: the unfinished copy was begun "
                + (f"with {flag} {theirs}" if isinstance(theirs, StrEnum) else "otherwise"),
                id="option-conflict",
                hint=f"leave out {flag} to go on with it, or start again with --force",
            )
    own = {one.name: getattr(asked, one.name) for one in fields(asked)}
    given = {name: value for name, value in own.items() if value is not None}
    more = {"input": kept.input | asked.input, "force": asked.force or kept.force}
    return replace(kept, **{**given, **more})


def command(request: Request, flag: str, jobs: Path | None) -> str:
    """How to type it."""
    words = ["v2v", "copy", flag, request.source, request.target]
    if jobs is not None:
        words += ["--jobs-dir", str(jobs)]
    return shlex.join(words)


def unfinished(jobs: Path | None) -> list[Request]:
    """Copies that were begun and have not ended, and that nobody is working on."""
    found = []
    for path in sorted(((jobs or default_jobs_folder()) / COPIES).glob("*/journal")):
        # Another version's, of which a copy of that pair tells; or one that ends just now.
        with suppress(msgspec.ValidationError, FileNotFoundError):
            if journal.is_locked(path):
                continue
            values = journal.latest(journal.read_entries(path)[0])
            if "begun" in values:
                found.append(msgspec.convert(values["begun"], Request))
    return found
