"""Jobs seen from outside: their list, their states, undoing them. No guest is converted here."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import v2v
from tests.integration import processes
from v2v import coordinator, journal
from v2v.api import list_jobs, print_source, start
from v2v.errors import UsageError, V2VError
from v2v.events import Event, JobFailed, JobStarted, StepStarted, Warned
from v2v.job import ConversionOptions, CopyOptions, Job, ModuleChoice
from v2v.logs import LogFile, logged_to
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


def test_disks_are_copied_side_by_side_to_their_own_files(target: Path, tmp_path: Path) -> None:
    disks = [tmp_path / name for name in ("a.img", "b.img", "c.img")]
    for number, disk in enumerate(disks):
        disk.write_bytes(bytes(510) + b"\x55\xaa" + bytes([number + 1]) * 3 * MiB)
    job = Job(
        input=ModuleChoice("disk"),
        output=ModuleChoice("local", {"-os": str(target)}),
        guests=tuple(map(str, disks)),
        conversion=AS_IT_IS,
        copy=CopyOptions(parallel=3),
    )
    start(job, jobs=tmp_path / "jobs")
    for disk, letter in zip(disks, "abc", strict=True):
        assert (target / f"a-sd{letter}").read_bytes() == disk.read_bytes()


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


def test_source_that_changed_is_copied_again(disk: Path, target: Path, tmp_path: Path) -> None:
    jobs = tmp_path / "jobs"
    job_id = _interrupted(disk, target, jobs, "step-started:copied:0")
    with disk.open("r+b") as stream:
        stream.write(b"changed")
    seen: list[Event] = []
    v2v.resume(job_id, jobs=jobs, emit=seen.append)
    assert [event.id for event in seen if isinstance(event, Warned)] == ["source-changed"]
    assert (target / "guest-sda").read_bytes() == disk.read_bytes()


@pytest.mark.parametrize(("rate", "said"), [("50M", 50 * MiB), (1000, 1000), (None, "none")])
def test_bandwidth_of_a_job_is_changed(
    disk: Path, target: Path, tmp_path: Path, rate: int | str | None, said: object
) -> None:
    result = v2v.convert(disk, storage=target, conversion=AS_IT_IS, jobs=tmp_path / "jobs")
    v2v.limit_bandwidth(result.job_id, rate, jobs=tmp_path / "jobs")
    assert (result.folder / "bandwidth").read_text() == f"{said}\n"
    assert not list(result.folder.glob(".bandwidth*"))


def test_bandwidth_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(V2VError) as caught:
        v2v.limit_bandwidth("x", "50 apples", jobs=tmp_path)
    assert caught.value.id == "option-value"
    with pytest.raises(V2VError) as caught:
        v2v.limit_bandwidth("x", "50M", jobs=tmp_path)
    assert caught.value.id == "job-unknown"


def test_result_tells_of_the_copies(disk: Path, target: Path, tmp_path: Path) -> None:
    result = v2v.convert(
        disk,
        storage=target,
        conversion=AS_IT_IS,
        jobs=tmp_path / "jobs",
        copy=CopyOptions(verify=1.0),
    )
    (copy,) = result.copies
    assert (copy.size, copy.verified) == (8 * MiB, 1.0)
    assert copy.checksum and copy.checksum in result.report.read_text()


def test_source_may_change_before_it_was_converted(
    disk: Path, target: Path, tmp_path: Path
) -> None:
    """It was repaired, or the guest was shut down: the job goes on with it as it is now."""
    jobs = tmp_path / "jobs"
    job_id = _interrupted(disk, target, jobs, "step-started:guest")
    with disk.open("r+b") as stream:
        stream.truncate(16 * MiB)
    with pytest.raises(ZeroDivisionError):
        v2v.resume(job_id, jobs=jobs, emit=_fail_at_copy)
    v2v.resume(job_id, jobs=jobs)
    assert (target / "guest-sda").read_bytes() == disk.read_bytes()


def test_lost_overlay_is_not_taken_for_a_guest_that_needs_nothing(
    disk: Path, target: Path, tmp_path: Path
) -> None:
    jobs = tmp_path / "jobs"
    job_id = _interrupted(disk, target, jobs, "step-started:copied:0")
    (jobs / job_id / "overlay-0.qcow2").unlink()
    with pytest.raises(V2VError) as caught:
        v2v.resume(job_id, jobs=jobs)
    assert caught.value.id == "overlay-lost"


def test_job_killed_while_it_was_undone_starts_over(
    disk: Path, target: Path, tmp_path: Path
) -> None:
    jobs = tmp_path / "jobs"
    job_id = _interrupted(disk, target, jobs, "step-finished:copied:0")
    script = """
import os, signal, sys
from pathlib import Path
import v2v
from v2v.outputs.local import LocalOutput
undo = LocalOutput.discard
def discard(*args):
    undo(*args)
    os.kill(os.getpid(), signal.SIGKILL)
LocalOutput.discard = discard
v2v.discard(sys.argv[2], jobs=Path(sys.argv[1]))
"""
    killed = subprocess.run([sys.executable, "-c", script, str(jobs), job_id], check=False)
    assert killed.returncode == -9
    v2v.resume(job_id, jobs=jobs)
    assert (target / "guest-sda").read_bytes() == disk.read_bytes()


def test_job_killed_before_it_began_can_be_discarded(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "journal").touch()
    with pytest.raises(V2VError) as caught:
        v2v.resume("x", jobs=tmp_path)
    assert caught.value.id == "journal-incomplete"
    v2v.discard("x", jobs=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_force_replaces_no_file_of_the_source(disk: Path, target: Path, tmp_path: Path) -> None:
    base = disk.rename(target / "vm-sda")
    before = base.read_bytes()
    top = target / "vm.qcow2"
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(base), str(top)]
    subprocess.run(argv, check=True)
    for source in (base, top):
        with pytest.raises(V2VError) as caught:
            v2v.convert(
                source,
                storage=target,
                output_options={"--force": ""},
                conversion=AS_IT_IS,
                jobs=tmp_path / "jobs",
            )
        assert caught.value.id == "target-is-source"
    assert base.read_bytes() == before


def test_relative_paths_are_those_of_where_the_job_was_started(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "images").mkdir()
    top = tmp_path / "images" / "top.qcow2"
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(disk), str(top)]
    subprocess.run(argv, check=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(V2VError, match="target: no such folder"):
        v2v.convert(
            "images/top.qcow2",
            input_options={"-io allow-backing": f"none:{disk.name}"},
            storage="target",
            conversion=AS_IT_IS,
            jobs=tmp_path / "jobs",
        )
    (tmp_path / "target").mkdir()
    monkeypatch.chdir("/")
    v2v.resume(list_jobs(tmp_path / "jobs")[0].job_id, jobs=tmp_path / "jobs")
    assert (tmp_path / "target" / "top-sda").read_bytes() == disk.read_bytes()


@pytest.mark.parametrize("address", ["http://me:pa/ss@host/x", "http://me:12@host/x", "nbd://h:p/"])
def test_password_in_an_address_is_not_kept(address: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        v2v.convert(address, storage=tmp_path, jobs=tmp_path / "jobs")
    assert caught.value.id in ("password-in-uri", "uri-invalid")
    assert "pa" not in caught.value.message.partition(": ")[0]
    assert not (tmp_path / "jobs").exists()


def test_disk_that_is_not_converted_needs_no_room_for_a_conversion(
    disk: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinator, "OVERLAY_SPACE", 1 << 60)
    v2v.convert(disk, storage=target, conversion=AS_IT_IS, jobs=tmp_path / "jobs")
    with pytest.raises(V2VError) as caught:
        v2v.convert(disk, name="other", storage=target, jobs=tmp_path / "jobs")
    assert caught.value.id == "no-space-jobs"


def test_job_does_not_fail_for_its_report(disk: Path, target: Path, tmp_path: Path) -> None:
    seen: list[Event] = []

    def emit(event: Event) -> None:
        seen.append(event)
        if isinstance(event, JobStarted):
            (Path(event.folder) / ".report.json.new").mkdir()

    v2v.convert(disk, storage=target, conversion=AS_IT_IS, jobs=tmp_path / "jobs", emit=emit)
    assert [event.id for event in seen if isinstance(event, Warned)] == ["no-report"]
    assert list_jobs(tmp_path / "jobs")[0].state == "finished"


def test_full_disk_prints_no_traceback_for_each_line_of_the_log(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with logged_to(LogFile("/dev/full"), "%(message)s"):
        logging.getLogger("v2v.test").warning("x")
    assert capsys.readouterr().err == ""


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


def test_a_job_that_ends_while_it_is_listed_was_not_interrupted(
    disk: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = tmp_path / "jobs"
    result = v2v.convert(disk, storage=target, conversion=AS_IT_IS, jobs=jobs)
    whole = (result.folder / "journal").read_bytes()
    *running, _ = whole.splitlines(keepends=True)  # the last line tells that it is finished
    (result.folder / "journal").write_bytes(b"".join(running))
    assert list_jobs(jobs)[0].state == "interrupted"

    def end(path: Path) -> bool:
        path.write_bytes(whole)
        return False

    monkeypatch.setattr(journal, "is_locked", end)
    assert list_jobs(jobs)[0].state == "finished"


def test_a_job_that_is_discarded_while_jobs_are_listed_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
        (folder / "journal").touch()
    read = journal.read_entries

    def discard_first(path: Path) -> Any:
        shutil.rmtree(folders[0], ignore_errors=True)
        return read(path)

    monkeypatch.setattr(journal, "read_entries", discard_first)
    assert [job.job_id for job in list_jobs(tmp_path)] == ["two"]


def test_a_scratch_job_that_has_just_made_its_journal_is_left_alone(
    disk: Path, tmp_path: Path
) -> None:
    """Another one, that comes before it has the lock, would take it for killed."""
    jobs = tmp_path / "jobs"
    began, killed = (jobs / ".scratch" / name for name in ("began", "killed"))
    for folder in (began, killed):
        folder.mkdir(parents=True)
        (folder / "journal").touch()
    (killed / "journal").write_bytes(b'{"key": "n", "value": 1}\n')
    job = Job(input=ModuleChoice("disk"), output=ModuleChoice("null"), guests=(str(disk),))
    print_source(job, jobs=jobs)
    assert began.exists() and not killed.exists()
    os.utime(began, (0, 0))
    print_source(job, jobs=jobs)
    assert not began.exists()


def test_two_jobs_that_remove_what_a_killed_one_left_do_not_disturb_each_other(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = tmp_path / "jobs"
    killed = jobs / ".scratch" / "killed"
    killed.mkdir(parents=True)
    (killed / "journal").write_bytes(b'{"key": "n", "value": 1}\n')
    (killed / "tmp").symlink_to(tmp_path / "v2v-gone")
    readlink = Path.readlink

    def removed_by_the_other(path: Path) -> Path:
        shutil.rmtree(killed, ignore_errors=True)
        return readlink(path)

    monkeypatch.setattr(Path, "readlink", removed_by_the_other)
    job = Job(input=ModuleChoice("disk"), output=ModuleChoice("null"), guests=(str(disk),))
    assert print_source(job, jobs=jobs).name == "vm"
    assert not killed.exists()


def test_unknown_job(tmp_path: Path) -> None:
    with pytest.raises(V2VError) as caught:
        v2v.resume("20200101-none", jobs=tmp_path)
    assert caught.value.id == "job-unknown"


def _fail_at_copy(event: Event) -> None:
    if isinstance(event, StepStarted) and event.step == "copied:0":
        raise ZeroDivisionError


def _interrupted(disk: Path, target: Path, jobs: Path, moment: str) -> str:
    """Run a job that is killed at a moment; gives its id."""
    driver = Path(__file__).parent / "integration" / "kill_at.py"
    argv = [sys.executable, str(driver), moment, str(jobs), str(disk), str(target), "--no-convert"]
    assert subprocess.run(argv, check=False).returncode == -9
    assert processes.gone(str(jobs))  # or its servers still hold the overlays' locks
    return list_jobs(jobs)[0].job_id
