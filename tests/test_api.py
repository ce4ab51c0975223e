"""Jobs seen from outside: their list, their states, undoing them. No guest is converted here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import v2v
from v2v.api import list_jobs
from v2v.errors import UsageError, V2VError
from v2v.events import Event, JobFailed, StepStarted
from v2v.job import ConversionOptions
from v2v.types import MiB

AS_IT_IS = ConversionOptions(convert=False)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """8 MiB with a boot sector's signature, some data, and holes."""
    path = tmp_path / "vm.img"
    with path.open("wb") as stream:
        stream.truncate(8 * MiB)
        stream.seek(510)
        stream.write(b"\x55\xaa")
        stream.seek(3 * MiB)
        stream.write(os.urandom(MiB))
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


def test_disk_is_copied_as_it_is(disk: Path, target: Path, tmp_path: Path) -> None:
    result = v2v.convert(disk, storage=target, conversion=AS_IT_IS, jobs=tmp_path / "jobs")
    assert (target / "vm-sda").read_bytes() == disk.read_bytes()
    assert result.guest.metadata == str(target / "vm.xml")
    (job,) = list_jobs(tmp_path / "jobs")
    assert (job.state, job.name, job.error) == ("finished", "vm", None)
    assert "copied:0" in job.steps
    report = json.loads((result.folder / "report.json").read_text())
    assert report["status"] == "finished"
    assert report["copies"][0]["data"] < 8 * MiB
    assert result.report.is_file()


def test_finished_job_resumes_to_the_same_result(disk: Path, target: Path, tmp_path: Path) -> None:
    jobs = tmp_path / "jobs"
    first = v2v.convert(disk, storage=target, conversion=AS_IT_IS, jobs=jobs)
    seen: list[Event] = []
    again = v2v.resume(first.job_id, jobs=jobs, emit=seen.append)
    assert again.guest == first.guest
    assert not [event for event in seen if isinstance(event, StepStarted)]


def test_wrong_option_makes_no_job(disk: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        v2v.convert(disk, storage=tmp_path, output="nul", jobs=tmp_path / "jobs")
    assert list_jobs(tmp_path / "jobs") == []


def test_failed_job_tells_its_error_and_can_be_resumed(disk: Path, tmp_path: Path) -> None:
    jobs, target = tmp_path / "jobs", tmp_path / "later"
    seen: list[Event] = []
    with pytest.raises(V2VError) as caught:
        v2v.convert(disk, storage=target, conversion=AS_IT_IS, jobs=jobs, emit=seen.append)
    (job,) = list_jobs(jobs)
    assert (job.state, job.error) == ("failed", caught.value.id)
    assert [event.error for event in seen if isinstance(event, JobFailed)] == [caught.value.id]
    target.mkdir()
    v2v.resume(job.job_id, jobs=jobs)
    assert list_jobs(jobs)[0].state == "finished"


def test_source_that_changed_is_not_resumed(disk: Path, target: Path, tmp_path: Path) -> None:
    jobs = tmp_path / "jobs"
    job_id = _interrupted(disk, target, jobs, "step-started:copied:0")
    with disk.open("r+b") as stream:
        stream.write(b"changed")
    with pytest.raises(V2VError) as caught:
        v2v.resume(job_id, jobs=jobs)
    assert caught.value.id == "source-changed"


def test_interrupted_job_is_listed_and_discarded(disk: Path, target: Path, tmp_path: Path) -> None:
    jobs = tmp_path / "jobs"
    job_id = _interrupted(disk, target, jobs, "step-started:copied:0")
    (job,) = list_jobs(jobs)
    assert job.state == "interrupted"
    assert list(target.iterdir()) != []
    v2v.discard(job_id, jobs=jobs)
    assert list(target.iterdir()) == []
    assert list_jobs(jobs) == []


def test_discarding_a_finished_job_keeps_its_guest(
    disk: Path, target: Path, tmp_path: Path
) -> None:
    jobs = tmp_path / "jobs"
    result = v2v.convert(disk, storage=target, conversion=AS_IT_IS, jobs=jobs)
    v2v.discard(result.job_id, jobs=jobs)
    assert sorted(path.name for path in target.iterdir()) == ["vm-sda", "vm.xml"]


def test_running_job_is_not_touched(disk: Path, target: Path, tmp_path: Path) -> None:
    jobs = tmp_path / "jobs"
    caught: list[V2VError] = []

    def try_to_resume(event: Event) -> None:
        if getattr(event, "step", "") == "copied:0" and not caught:
            (job,) = list_jobs(jobs)
            assert job.state == "running"
            with pytest.raises(V2VError) as error:
                v2v.resume(job.job_id, jobs=jobs)
            caught.append(error.value)

    v2v.convert(disk, storage=target, conversion=AS_IT_IS, jobs=jobs, emit=try_to_resume)
    assert [error.id for error in caught] == ["job-running"]


def test_unknown_job(tmp_path: Path) -> None:
    with pytest.raises(V2VError) as caught:
        v2v.resume("20200101-none", jobs=tmp_path)
    assert caught.value.id == "job-unknown"


def _interrupted(disk: Path, target: Path, jobs: Path, moment: str) -> str:
    """Run a job that is killed at a moment; gives its id."""
    driver = Path(__file__).parent / "integration" / "kill_at.py"
    argv = [sys.executable, str(driver), moment, str(jobs), str(disk), str(target), "--no-convert"]
    assert subprocess.run(argv, check=False).returncode == -9
    return list_jobs(jobs)[0].job_id
