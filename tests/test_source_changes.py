"""What is changed at a source is journaled first, and undone from the journal alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from v2v import source_changes
from v2v.errors import Cancelled, SourceError
from v2v.events import Event, Message, Warned
from v2v.run import Run
from v2v.source_changes import let_go, make, pending, undo_all
from v2v.types import SourceChange


class Host:
    """A source: a folder, in which a snapshot is a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reachable = True

    def create(self, change: SourceChange) -> Callable[[], None]:
        return lambda: (self.folder / change.name).touch()

    def undo(self, change: SourceChange, run: Run) -> None:
        if not self.reachable:
            raise SourceError("host: no answer", id="ssh-connect")
        (self.folder / change.name).unlink(missing_ok=True)

    @property
    def snapshots(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def host(tmp_path: Path) -> Host:
    (tmp_path / "host").mkdir()
    return Host(tmp_path / "host")


def change(name: str, *, temporary: bool = True) -> SourceChange:
    return SourceChange(
        kind="snapshot",
        what=f"snapshot {name} of web",
        target="vm-1",
        name=name,
        temporary=temporary,
    )


def test_changes_are_undone_last_first_and_once(run: Run, host: Host) -> None:
    one, two = change("one"), change("two")
    for each in (one, two):
        make(run, each, host.create(each))
    assert pending(run) == (one, two)
    assert undo_all(run, host.undo) == (two, one)
    assert host.snapshots == []
    assert pending(run) == ()
    assert undo_all(run, host.undo) == ()


def test_what_is_not_there_any_more_is_undone(run: Run, host: Host) -> None:
    make(run, change("one"), lambda: None)
    assert undo_all(run, host.undo) == (change("one"),)


def test_the_intent_is_journaled_before_the_change(run: Run, host: Host) -> None:
    seen = []
    make(run, change("one"), lambda: seen.append(pending(run)))
    assert seen == [(change("one"),)]


def test_a_change_that_fails_half_way_is_undone_too(run: Run, host: Host) -> None:
    def fails() -> None:
        host.create(change("one"))()
        raise SourceError("the task failed", id="vsphere-task")

    with pytest.raises(SourceError):
        make(run, change("one"), fails)
    undo_all(run, host.undo)
    assert host.snapshots == []


def test_what_is_refused_before_it_is_begun_is_not_undone(run: Run, host: Host) -> None:
    def refused() -> None:
        raise SourceError("not allowed", id="vsphere-permission")

    for known in (False, True):
        with pytest.raises(SourceError):
            make(run, change("one"), refused, refused=lambda error: True)
        assert pending(run) == ((change("one"),) if known else ())
        with pytest.raises(SourceError):
            make(run, change("one"), refused)  # begun, for all that is known


def test_a_change_made_again_keeps_its_entry(run: Run, host: Host) -> None:
    for _ in range(3):
        make(run, change("one"), host.create(change("one")))
    assert source_changes.keys(run) == ["source-change:0"]
    undo_all(run, host.undo)
    make(run, change("one"), host.create(change("one")))  # after `v2v undo` and `v2v resume`
    assert source_changes.keys(run) == ["source-change:0", "source-change:1"]
    assert pending(run) == (change("one"),)


def test_temporary_changes_are_undone_alone(run: Run, host: Host, events_seen: list[Event]) -> None:
    off = change("off", temporary=False)
    for one in (off, change("one")):
        make(run, one, host.create(one))
    let_go(run, host.undo)
    assert pending(run) == (off,)
    source_changes.tell_of_lasting(run)
    (told,) = [event for event in events_seen if isinstance(event, Message)]
    assert f"v2v undo {run.job_id}" in told.text
    assert undo_all(run, host.undo) == (off,)


def test_what_cannot_be_undone_is_told_with_the_command_for_later(
    run: Run, host: Host, events_seen: list[Event]
) -> None:
    make(run, change("one"), host.create(change("one")))
    host.reachable = False
    let_go(run, host.undo)
    (warning,) = [event for event in events_seen if isinstance(event, Warned)]
    assert warning.id == "source-change-left"
    assert warning.hint and f"v2v undo {run.job_id}" in warning.hint
    assert "no answer" in warning.text
    assert pending(run) == (change("one"),)
    host.reachable = True
    undo_all(run, host.undo)
    assert host.snapshots == []


def test_one_that_cannot_be_undone_keeps_none_of_the_others(run: Run, host: Host) -> None:
    for name in ("one", "two", "three"):
        make(run, change(name), host.create(change(name)))

    def undo(one: SourceChange, part: Run) -> None:
        if one.name == "two":
            raise SourceError("locked", id="vsphere-task")
        host.undo(one, part)

    with pytest.raises(SourceError, match="locked"):
        undo_all(run, undo)
    assert host.snapshots == ["two"]
    assert pending(run) == (change("two"),)


def test_a_cancelled_job_undoes_although_its_token_is_set(run: Run, host: Host) -> None:
    make(run, change("one"), host.create(change("one")))
    run.cancel.cancel()
    with pytest.raises(Cancelled):
        undo_all(run, host.undo)
    source_changes.undo_of_stopped(run, host.undo)
    assert host.snapshots == []


def test_who_cancels_the_end_of_a_job_still_has_what_is_temporary_undone(
    run: Run, host: Host, events_seen: list[Event]
) -> None:
    off = change("off", temporary=False)
    for one in (off, change("one")):
        make(run, one, host.create(one))

    def undo(one: SourceChange, part: Run) -> None:
        if not run.cancel.cancelled:
            run.cancel.cancel()
            part.cancel.check()
        host.undo(one, part)

    let_go(run, undo)
    assert host.snapshots == ["off"]
    assert pending(run) == (off,)
    assert not [event for event in events_seen if isinstance(event, Warned)]


def test_a_cancelled_job_does_not_wait_for_hours(
    run: Run, host: Host, events_seen: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_changes, "STOPPED_SECONDS", 0.05)
    make(run, change("one"), host.create(change("one")))

    def slow(one: SourceChange, part: Run) -> None:
        part.cancel.wait(60)

    run.cancel.cancel()
    source_changes.undo_of_stopped(run, slow)
    (warning,) = [event for event in events_seen if isinstance(event, Warned)]
    assert warning.id == "source-change-left" and "takes longer" in warning.text
    assert pending(run) == (change("one"),)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_in(work: Callable[[], None]) -> None:
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("moment", ["before", "after", "undo", "undone"])
def test_killed_at_any_moment_leaves_nothing_after_undo(
    moment: str, tmp_path: Path, host: Host
) -> None:
    """Before the change is made, before it is known to be made, and on both sides of undoing it."""
    one = change("one")

    def job() -> None:
        with Run.create(tmp_path / "jobs", "web") as run:

            def action() -> None:
                if moment == "before":
                    die()
                host.create(one)()
                if moment == "after":
                    die()

            def undo(change: SourceChange, part: Run) -> None:
                if moment == "undo":
                    die()
                host.undo(change, part)
                die()

            make(run, one, action)
            undo_all(run, undo)

    killed_in(job)
    (folder,) = (tmp_path / "jobs").iterdir()
    assert host.snapshots == (["one"] if moment in ("after", "undo") else [])
    with Run.open(folder) as run:
        assert undo_all(run, host.undo) == (one,)
        assert undo_all(run, host.undo) == ()
    assert host.snapshots == []
