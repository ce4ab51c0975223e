"""The jobs of a folder, without their locks."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    found = []
    for path in sorted(folder.glob("*/journal")) if folder.is_dir() else []:
        with suppress(FileNotFoundError):  # somebody discards it just now
            found.append(_summary(path))
    return sorted(found, key=lambda job: job.started)


def _summary(path: Path) -> JobSummary:
    values = _values(path)
    if _state(values).state == "running" and not journal.is_locked(path):
        values = _values(path)  # it may have ended since
        interrupted = _state(values).state == "running"
    else:
        interrupted = False
    job = values.get("job", {})
    guests = job.get("guests") or [path.parent.name]
    state = _state(values)
    return JobSummary(
        job_id=path.parent.name,
        name=values.get("source", {}).get("name") or job.get("name") or Path(guests[0]).name,
        state="interrupted" if interrupted else state.state,
        started=values.get("created", path.stat().st_ctime),
        folder=path.parent,
        steps=tuple(key for key in values if _is_step(key)),
        error=state.error,
        source_changes=source_changes.pending_in(values),
    )


def _values(path: Path) -> dict[str, Any]:
    return journal.latest(journal.read_entries(path)[0])


def _state(values: Mapping[str, Any]) -> State:
    return msgspec.convert(values.get("state", {"state": "interrupted"}), State)


def _is_step(key: str) -> bool:
    return key not in (*IDENTITY, "state") and not key.startswith(source_changes.KEY)
