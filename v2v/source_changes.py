"""What a job changes at its source: journaled before it is made, and taken back from the journal.

A change is planned, then made, then undone. Whoever is killed between these leaves a record that
says less than what is there, so that neither making nor undoing believes it: both look at the
source, for the name that the change's own thing has, and what is there already is no error.
"""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import count
from typing import Any

import msgspec

from v2v import events
from v2v.cancel import Cancel
from v2v.errors import Cancelled, V2VError
from v2v.run import Run, default_jobs_folder
from v2v.types import SourceChange

KEY = "source-change:"  # and a number: the journal's keys
STOPPED_SECONDS = 120.0  # who cancels a job does not wait for hours


class State(StrEnum):
    PLANNED = "planned"  # maybe made
    MADE = "made"
    UNDONE = "undone"


@dataclass(frozen=True, slots=True)
class Recorded:
    """One entry of the journal."""

    change: SourceChange
    state: State


def keys(run: Run) -> list[str]:
    """The journal's keys of all changes, in the order in which they were planned."""
    return list(_keys(run))


def _keys(run: Run) -> Iterator[str]:
    for number in count():
        key = f"{KEY}{number}"
        if key not in run.journal:
            return
        yield key


def pending(run: Run) -> tuple[SourceChange, ...]:
    """The changes that are not undone, in the order in which they were planned."""
    return tuple(one.change for _, one in _pending(run))


def _pending(run: Run) -> list[tuple[str, Recorded]]:
    found = [(key, run.journal.get(key, Recorded)) for key in keys(run)]
    return [(key, one) for key, one in found if one.state != State.UNDONE]


def pending_in(values: Mapping[str, Any]) -> tuple[SourceChange, ...]:
    """The same from what `v2v.journal.latest` gives of a journal that is not opened."""
    found = [msgspec.convert(values[key], Recorded) for key in values if key.startswith(KEY)]
    return tuple(one.change for one in found if one.state != State.UNDONE)


def make(
    run: Run,
    change: SourceChange,
    action: Callable[[], None],
    *,
    refused: Callable[[V2VError], bool] = lambda error: False,
) -> None:
    """Journal the change, then make it. `action` does nothing where all is as it should be.

    A change that the journal has already, as of a job that is resumed, keeps its entry. `refused`
    tells errors after which nothing can have changed, so that there is nothing to undo: somebody
    else may make the same change later.
    """
    known = [key for key, one in _pending(run) if one.change == change]
    key = known[0] if known else f"{KEY}{len(keys(run))}"
    with run.step("change-source", f"At the source: {change.what}"):
        run.journal.put(key, Recorded(change, State.PLANNED))
        try:
            action()
        except V2VError as exc:
            if not known and refused(exc):
                run.journal.put(key, Recorded(change, State.UNDONE))
            raise
        run.journal.put(key, Recorded(change, State.MADE))


def undo_all(
    run: Run, undo: Callable[[SourceChange, Run], None], *, temporary_only: bool = False
) -> tuple[SourceChange, ...]:
    """Take back, last first, what was not; gives what was. `undo` does one.

    One that fails does not keep the others from being taken back; the first error is raised.
    """
    undone, errors = [], []
    for key, one in reversed(_pending(run)):
        if temporary_only and not one.change.temporary:
            continue
        try:
            with run.step("undo-source", f"Undoing at the source: {one.change.what}"):
                undo(one.change, run)
                run.journal.put(key, replace(one, state=State.UNDONE))
        except V2VError as exc:
            errors.append(exc)
        else:
            undone.append(one.change)
    if errors:
        raise errors[0]
    return tuple(undone)


def let_go(run: Run, undo: Callable[[SourceChange, Run], None]) -> None:
    """All is copied: take back what is temporary. That it fails, or is cancelled, ends no job; what
    is left is told, with the command for later."""
    try:
        undo_all(run, undo, temporary_only=True)
    except Cancelled:
        undo_of_stopped(run, undo, temporary_only=True)
    except V2VError as exc:
        _warn_of_left(run, exc.message, temporary_only=True)


def undo_of_stopped(
    run: Run, undo: Callable[[SourceChange, Run], None], *, temporary_only: bool = False
) -> None:
    """After a job was cancelled: its token is set, so that this has one of its own. What takes
    long, such as a large snapshot, goes on at the source without us."""
    token = Cancel()
    timer = threading.Timer(STOPPED_SECONDS, token.cancel)
    timer.daemon = True
    timer.start()
    try:
        undo_all(run.part(cancel=token), undo, temporary_only=temporary_only)
    except V2VError as exc:
        late = f"it takes longer than {STOPPED_SECONDS:.0f} s"
        why = late if token.cancelled else exc.message
        _warn_of_left(run, why, temporary_only=temporary_only)
    finally:
        timer.cancel()


def _warn_of_left(run: Run, why: str, *, temporary_only: bool) -> None:
    left = [one for one in pending(run) if one.temporary or not temporary_only]
    run.warn(
        f"{_listed(left)} could not be undone at the source: {why}",
        id="source-change-left",
        hint=f"`{_command('undo', run)}` does it later",
    )


def warn_of_kept(run: Run) -> None:
    """A job failed that can be resumed: what it needs at the source stays."""
    if left := pending(run):
        run.warn(
            f"{_listed(left)}: kept at the source, so that the job can be resumed",
            id="source-change-kept",
            hint=f"`{_command('resume', run)}` goes on; `{_command('undo', run)}` takes it back",
        )


def tell_of_lasting(run: Run) -> None:
    """A job is finished: what it was asked to leave changed."""
    if left := [one for one in pending(run) if not one.temporary]:
        text = f"Left at the source: {_listed(left)}; `{_command('undo', run)}` takes it back"
        run.emit(events.Message, text=text)


def _command(verb: str, run: Run) -> str:
    jobs = run.folder.parent
    where = "" if jobs == default_jobs_folder() else f" --jobs-dir {shlex.quote(str(jobs))}"
    return f"v2v {verb} {run.job_id}{where}"


def _listed(changes: list[SourceChange] | tuple[SourceChange, ...]) -> str:
    return ", ".join(one.what for one in changes)
