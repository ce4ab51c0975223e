"""Run: the job's folder, its steps, and what it tells."""

from __future__ import annotations

import stat
import tempfile
from pathlib import Path

import pytest

from v2v import events
from v2v.cancel import Cancel
from v2v.errors import Cancelled, HostError, JobError
from v2v.events import Event
from v2v.run import Run, default_jobs_folder


@pytest.mark.parametrize("name", ["web", "../../etc", "a/b", "", ".", "ö ü", "x" * 300, "-rf"])
def test_job_folders_stay_in_their_place(tmp_path: Path, name: str) -> None:
    with Run.create(tmp_path / "jobs", name) as run:
        assert run.folder.parent == tmp_path / "jobs"
        assert stat.S_IMODE(run.folder.stat().st_mode) == 0o700
        assert len(run.job_id) < 80


def test_two_jobs_of_one_name(tmp_path: Path) -> None:
    with Run.create(tmp_path, "web") as one, Run.create(tmp_path, "web") as other:
        assert one.folder != other.folder


def test_sockets_fit_in_the_temporary_folder(run: Run) -> None:
    assert len(str(run.tmp / ("n" * 40) / "s")) < 107
    assert stat.S_IMODE(run.tmp.stat().st_mode) == 0o700


def test_sockets_fit_though_the_temporary_folder_has_a_long_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with Run.create(tmp_path / "jobs", "web") as run:
        assert len(str(run.tmp / ("n" * 40) / "s")) < 107


def test_without_a_temporary_folder_there_is_no_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/dev/null")
    with pytest.raises(HostError, match="/dev/null/v2v-") as caught:
        Run.create(tmp_path / "jobs", "web")
    assert caught.value.id == "job-folders"
    assert list((tmp_path / "jobs").iterdir()) == []


def test_a_job_that_cannot_be_opened_is_not_left_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Run.create(tmp_path, "web") as run:
        folder = run.folder
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", "/dev/null")
        with pytest.raises(HostError):
            Run.open(folder)
    with Run.open(folder) as run:
        assert run.tmp.is_dir()


def test_nothing_short_lived_is_left(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Run.create(tmp_path, "web") as run:
        (run.tmp / "socket").touch()
        raise ZeroDivisionError
    assert not run.tmp.exists()
    assert {p.name for p in run.folder.iterdir()} == {"journal", "log"}


def test_a_step_is_done_once(tmp_path: Path) -> None:
    calls, seen = [], list[Event]()

    def work() -> int:
        calls.append(1)
        return 42

    with Run.create(tmp_path, "web", emit=seen.append) as run:
        assert run.once("copy", "Copying", int, work) == 42
    with Run.open(run.folder, emit=seen.append) as run:
        assert run.once("copy", "Copying", int, work) == 42
    assert len(calls) == 1
    kinds = [(type(e).__name__, getattr(e, "reused", None)) for e in seen]
    assert kinds == [("StepStarted", None), ("StepFinished", False), ("StepFinished", True)]
    assert {e.job for e in seen} == {run.job_id}


def test_a_failed_step_is_tried_again(run: Run) -> None:
    with pytest.raises(ZeroDivisionError):
        run.once("copy", "Copying", float, lambda: 1 / 0)
    assert run.once("copy", "Copying", float, lambda: 1.0) == 1.0


def test_a_running_job_cannot_be_opened(run: Run) -> None:
    with pytest.raises(JobError) as caught:
        Run.open(run.folder)
    assert caught.value.id == "job-running"
    assert run.tmp.is_dir()  # the owner's


def test_an_unknown_job(tmp_path: Path) -> None:
    with pytest.raises(JobError) as caught:
        Run.open(tmp_path / "none")
    assert caught.value.id == "job-unknown"


def test_no_step_starts_after_cancel(tmp_path: Path) -> None:
    cancel = Cancel()
    with Run.create(tmp_path, "web", cancel=cancel) as run:
        cancel.cancel()
        with pytest.raises(Cancelled):
            run.once("copy", "Copying", int, lambda: 1)
        assert "copy" not in run.journal


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostError) as caught:
        Run.create(tmp_path / "file", "web")
    assert caught.value.id == "jobs-folder"


def test_the_place_of_jobs_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("V2V_JOBS", str(tmp_path))
    assert default_jobs_folder() == tmp_path


def test_warnings_are_events(run: Run, events_seen: list[Event]) -> None:
    run.warn("careful", id="some-warning", hint="look")
    (event,) = events_seen
    assert isinstance(event, events.Warned)
    assert events.to_json(event)["event"] == "warning"
    assert (event.id, event.text, event.hint) == ("some-warning", "careful", "look")


def test_cancel_calls_what_unblocks_once() -> None:
    cancel, calls = Cancel(), list[str]()
    with cancel.calling(lambda: calls.append("ended")):
        pass
    with cancel.calling(lambda: calls.append("running")):
        cancel.cancel()
        cancel.cancel()
    assert calls == ["running"]
    with pytest.raises(Cancelled), cancel.calling(lambda: None):
        pass
    with pytest.raises(Cancelled):
        cancel.wait(60)
