"""The jobs of a folder, without their locks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from v2v import journal, source_changes
from v2v.run import default_jobs_folder
from v2v.types import SourceChange

# What a job keeps when it is undone.
IDENTITY = ("job", "created")


@dataclass(frozen=True, slots=True)
class JobSummary:
    """One line of `v2v jobs`. `state` is running, finished, failed, cancelled or interrupted."""

    job_id: str
    name: str
    state: str
    started: float  # Unix time
    folder: Path
    steps: tuple[str, ...]  # finished ones
    error: str | None = None
    source_changes: tuple[SourceChange, ...] = ()  # what `undo` would take back


@dataclass(frozen=True, slots=True)
class State:
    state: str
    error: str | None = None
    message: str | None = None
    hint: str | None = None


def list_jobs(jobs: Path | None = None) -> list[JobSummary]:
    """The jobs of a folder, oldest first."""
    folder = jobs or default_jobs_folder()
    found = sorted(folder.glob("*/journal")) if folder.is_dir() else []
    return sorted((_summary(path) for path in found), key=lambda job: job.started)


def _summary(path: Path) -> JobSummary:
    values = journal.latest(journal.read_entries(path)[0])
    job = values.get("job", {})
    guests = job.get("guests") or [path.parent.name]
    state = msgspec.convert(values.get("state", {"state": "interrupted"}), State)
    name = state.state
    if name == "running" and not journal.is_locked(path):
        name = "interrupted"
    return JobSummary(
        job_id=path.parent.name,
        name=values.get("source", {}).get("name") or job.get("name") or Path(guests[0]).name,
        state=name,
        started=values.get("created", path.stat().st_ctime),
        folder=path.parent,
        steps=tuple(key for key in values if _is_step(key)),
        error=state.error,
        source_changes=source_changes.pending_in(values),
    )


def _is_step(key: str) -> bool:
    return key not in (*IDENTITY, "state") and not key.startswith(source_changes.KEY)
