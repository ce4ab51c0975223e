"""Whatever happens to v2v, what it changed at a vCenter can be taken back from its journal."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import v2v
from tests.fakes.vsphere.certificates import certificate
from tests.vcsim import Disk, Vcsim, Vm, vcsim
from v2v.events import Event, Message, StepFinished, StepStarted, Warned
from v2v.types import KiB, MiB

SCRIPT = Path(__file__).with_name("kill_at_source.py")
CONTENT = os.urandom(64 * KiB) * 128  # 8 MiB
WHILE_COPYING = "step-started:copied:0"


@pytest.fixture(scope="module")
def vc(tmp_path_factory: pytest.TempPathFactory, module_tools) -> Iterator[Vcsim]:
    with vcsim(tmp_path_factory.mktemp("vc") / "sim") as vc:
        yield vc


@pytest.fixture(scope="module")
def module_tools() -> None:
    if shutil.which("nbdkit") is None:
        pytest.skip("nbdkit is not installed (make setup installs it)")


@dataclass(frozen=True)
class Place:
    """A VM that runs, and the folders of the jobs that move it."""

    vc: Vcsim
    vm: Vm
    jobs: Path
    target: Path

    @property
    def options(self) -> dict[str, str]:
        return {
            "-ic": self.vc.uri(),
            "-ip": str(self.vc.password_file),
            "-io cafile": str(self.vc.cafile),
        }

    def convert(self, running: str, **more: object) -> v2v.Result:
        return v2v.convert(
            self.vm.name,
            input="vsphere",
            input_options=self.options | {"-io running": running},
            storage=self.target,
            name="copy",
            conversion=v2v.ConversionOptions(convert=False),
            jobs=self.jobs,
            **more,
        )

    def argv(self, moment: str, running: str) -> list[str]:
        files = [str(self.vc.password_file), str(self.vc.cafile)]
        words = ["convert", self.vc.uri(), *files, self.vm.name, running, str(self.target)]
        return [sys.executable, str(SCRIPT), moment, str(self.jobs), *words]

    @property
    def job(self) -> v2v.JobSummary:
        (job,) = v2v.list_jobs(self.jobs)
        return job

    def snapshots(self) -> list[str]:
        info = self.vm.api.snapshot
        return [tree.name for tree in info.rootSnapshotList] if info else []

    def runs(self) -> bool:
        return str(self.vm.api.runtime.powerState) == "poweredOn"

    def is_as_before(self) -> bool:
        """The VM runs, without a snapshot, on the disk that it had."""
        (disk,) = [one for one in self.vm.api.config.hardware.device if one.key == 2000]
        whole = (self.vm.folder / f"{self.vm.name}-flat.vmdk").read_bytes() == CONTENT
        same = disk.backing.fileName == "[datastore1] web/web.vmdk"
        return self.runs() and not self.snapshots() and whole and same


@pytest.fixture
def place(vc: Vcsim, tmp_path: Path) -> Iterator[Place]:
    vm = vc.create_vm("web", disks=[Disk(content=CONTENT)])
    vm.power(on=True)
    (tmp_path / "target").mkdir()
    place = Place(vc, vm, tmp_path / "jobs", tmp_path / "target")
    yield place
    if place.runs():
        vm.power(on=False)
    vm.api.Destroy()


def killed(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_snapshot_is_gone_as_soon_as_the_copy_is_finished(place: Place) -> None:
    seen: list[tuple[str, list[str]]] = []

    def emit(event: Event) -> None:
        if isinstance(event, StepStarted | StepFinished):
            seen.append((event.step, place.snapshots()))

    result = place.convert("snapshot", emit=emit)
    name = f"v2v-{result.job_id}"
    assert (place.target / "copy-sda").read_bytes() == CONTENT
    assert ("copied:0", [name]) in seen and ("check-source", [name]) in seen
    assert ("finalize", [name]) in seen and ("undo-source", []) in seen
    assert place.is_as_before()
    assert place.job.source_changes == ()
    assert v2v.undo(result.job_id, jobs=place.jobs) == ()


def test_vm_that_was_shut_down_stays_off_until_undo(place: Place) -> None:
    told: list[str] = []

    def emit(event: Event) -> None:
        if isinstance(event, Message):
            told.append(event.text)

    result = place.convert("shutdown", emit=emit)
    assert not place.runs()
    assert [one for one in told if f"v2v undo {result.job_id}" in one]
    (change,) = v2v.undo(result.job_id, jobs=place.jobs)
    assert (change.kind, change.temporary) == ("shut-down", False)
    assert place.is_as_before()


def test_a_finished_job_that_is_discarded_starts_no_second_vm(place: Place) -> None:
    result = place.convert("power-off")
    v2v.discard(result.job_id, jobs=place.jobs)
    assert not result.folder.exists()
    assert not place.runs()


def test_a_job_that_is_refused_changes_nothing(place: Place) -> None:
    (place.target / "copy-sda").write_bytes(b"somebody's")
    for running in ("snapshot", "shutdown", "power-off"):
        with pytest.raises(v2v.V2VError) as caught:
            place.convert(running)
        assert caught.value.id == "target-exists"
    assert place.is_as_before()
    assert all(job.source_changes == () for job in v2v.list_jobs(place.jobs))


def test_looking_at_a_vm_changes_nothing(place: Place) -> None:
    from v2v import api
    from v2v.job import Job, ModuleChoice

    options = place.options | {"-io running": "snapshot"}
    job = Job(input=ModuleChoice("vsphere", options), output=ModuleChoice("null"), guests=("web",))
    assert api.print_source(job, jobs=place.jobs).name == "web"
    with pytest.raises(v2v.V2VError) as caught:
        v2v.inspect("web", input="vsphere", input_options=options, jobs=place.jobs)
    assert caught.value.id == "source-running"
    assert place.is_as_before()
    assert len(place.vm.api.recentTask or ()) == 0


@pytest.mark.parametrize("running", ["snapshot", "shutdown"])
def test_a_job_that_is_cancelled_takes_all_back(place: Place, running: str) -> None:
    cancel = v2v.Cancel()

    def emit(event: Event) -> None:
        if isinstance(event, StepStarted) and event.step == "copied:0":
            cancel.cancel()

    with pytest.raises(v2v.V2VError) as caught:
        place.convert(running, emit=emit, cancel=cancel)
    assert caught.value.id == "cancelled"
    assert place.is_as_before()
    assert place.job.source_changes == ()
    assert list(place.target.iterdir()) == []


def test_a_job_that_is_cancelled_while_its_snapshot_is_deleted_keeps_its_copy(place: Place) -> None:
    cancel = v2v.Cancel()

    def emit(event: Event) -> None:
        if isinstance(event, StepStarted) and event.step == "undo-source":
            cancel.cancel()

    result = place.convert("snapshot", emit=emit, cancel=cancel)
    assert (place.target / "copy-sda").read_bytes() == CONTENT
    assert place.job.state == "finished"
    assert place.is_as_before()
    assert v2v.undo(result.job_id, jobs=place.jobs) == ()


def test_a_copy_that_cannot_be_finished_needs_no_snapshot(place: Place) -> None:
    """What is copied is kept; a snapshot that nobody reads would grow."""
    described = place.target / "copy.xml"

    def emit(event: Event) -> None:
        if isinstance(event, StepStarted) and event.step == "finalize":
            described.write_text("somebody else's")

    with pytest.raises(v2v.V2VError) as caught:
        place.convert("snapshot", emit=emit)
    assert caught.value.id == "target-exists"
    assert place.is_as_before()
    assert place.job.source_changes == ()
    described.unlink()
    v2v.resume(place.job.job_id, jobs=place.jobs)
    assert (place.target / "copy-sda").read_bytes() == CONTENT


def test_a_snapshot_that_somebody_deletes_while_it_is_copied(place: Place) -> None:
    """What was read may be torn; the job is there to begin again."""

    def emit(event: Event) -> None:
        if isinstance(event, StepStarted) and event.step == "check-source":
            place.vm.api.RemoveAllSnapshots()

    with pytest.raises(v2v.V2VError) as caught:
        place.convert("snapshot", emit=emit)
    assert caught.value.id == "source-changed-while-copied"
    assert f"v2v-{place.job.job_id}" in caught.value.message
    v2v.resume(place.job.job_id, jobs=place.jobs)
    assert (place.target / "copy-sda").read_bytes() == CONTENT
    assert place.is_as_before()


def untrusted_from(step: str, place: Place, tmp_path: Path, seen: list[str]) -> Callable[..., None]:
    """The vCenter has another certificate from this step on: nobody can ask it any more."""
    other = certificate(tmp_path / "other")

    def emit(event: Event) -> None:
        if isinstance(event, StepStarted) and event.step == step:
            place.vc.front.certificate = other.context
        if isinstance(event, Warned):
            seen.append(event.id)

    return emit


@pytest.fixture
def trusted(vc: Vcsim, tmp_path: Path) -> Iterator[None]:
    (tmp_path / "other").mkdir()
    yield
    vc.front.certificate = vc.certificate.context


def test_a_copy_that_is_finished_does_not_fail_for_a_snapshot_that_is_left(
    place: Place, tmp_path: Path, trusted: None
) -> None:
    seen: list[str] = []
    result = place.convert("snapshot", emit=untrusted_from("undo-source", place, tmp_path, seen))
    assert "source-change-left" in seen
    assert (place.target / "copy-sda").read_bytes() == CONTENT
    assert place.snapshots() == [f"v2v-{result.job_id}"]
    with pytest.raises(v2v.V2VError) as caught:
        v2v.discard(result.job_id, jobs=place.jobs)
    assert caught.value.id == "source-changes-kept"
    with pytest.raises(v2v.V2VError) as caught:
        v2v.undo(result.job_id, jobs=place.jobs)
    assert caught.value.id == "tls-untrusted"
    place.vc.front.certificate = place.vc.certificate.context
    v2v.discard(result.job_id, jobs=place.jobs)
    assert place.is_as_before()
    assert (place.target / "copy-sda").exists()


def test_a_job_that_fails_keeps_its_snapshot_and_is_resumed(
    place: Place, tmp_path: Path, trusted: None
) -> None:
    seen: list[str] = []
    with pytest.raises(v2v.V2VError):
        place.convert("snapshot", emit=untrusted_from("check-source", place, tmp_path, seen))
    assert "source-change-kept" in seen
    name = f"v2v-{place.job.job_id}"
    assert place.snapshots() == [name]
    place.vc.front.certificate = place.vc.certificate.context
    v2v.resume(place.job.job_id, jobs=place.jobs)
    assert (place.target / "copy-sda").read_bytes() == CONTENT
    assert place.is_as_before()


@pytest.mark.parametrize(
    ("moment", "running"),
    [
        ("asked:1", "snapshot"),
        ("done:1", "snapshot"),
        (WHILE_COPYING, "snapshot"),
        ("asked:2", "snapshot"),  # deleting it
        ("done:2", "snapshot"),
        ("asked:1", "shutdown"),
        ("done:1", "shutdown"),
        (WHILE_COPYING, "shutdown"),
        ("done:1", "power-off"),
    ],
)
def test_killed_at_any_moment_and_undone_elsewhere(
    moment: str, running: str, place: Place, tmp_path: Path
) -> None:
    """All that the other host has of the job is its journal."""
    killed(place.argv(moment, running))
    job = place.job.job_id
    elsewhere = tmp_path / "elsewhere" / job
    elsewhere.mkdir(parents=True)
    shutil.copy(place.jobs / job / "journal", elsewhere)
    (change,) = v2v.undo(job, jobs=elsewhere.parent)
    assert change.kind == {"shutdown": "shut-down"}.get(running, running)
    assert place.is_as_before()
    assert v2v.undo(job, jobs=elsewhere.parent) == ()
    assert [one.kind for one in v2v.undo(job, jobs=place.jobs)] == [change.kind]  # nothing is there
    assert place.is_as_before()


@pytest.mark.parametrize("moment", ["asked:1", "done:1"])
@pytest.mark.parametrize("running", ["snapshot", "power-off"])
def test_undo_that_is_killed_is_repeated(moment: str, running: str, place: Place) -> None:
    killed(place.argv(WHILE_COPYING, running))
    job = place.job.job_id
    killed([sys.executable, str(SCRIPT), moment, str(place.jobs), "undo", job])
    v2v.undo(job, jobs=place.jobs)
    assert place.is_as_before()


@pytest.mark.parametrize("moment", ["asked:1", "done:1", WHILE_COPYING, "asked:2", "done:2"])
def test_killed_at_any_moment_and_resumed(moment: str, place: Place) -> None:
    killed(place.argv(moment, "snapshot"))
    v2v.resume(place.job.job_id, jobs=place.jobs)
    assert (place.target / "copy-sda").read_bytes() == CONTENT
    assert place.is_as_before()


def test_undone_and_then_resumed_makes_its_snapshot_anew(place: Place) -> None:
    killed(place.argv(WHILE_COPYING, "snapshot"))
    v2v.undo(place.job.job_id, jobs=place.jobs)
    v2v.resume(place.job.job_id, jobs=place.jobs)
    assert (place.target / "copy-sda").read_bytes() == CONTENT
    assert place.is_as_before()


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_a_random_moment(seed: int, place: Place) -> None:
    """With all the programs that it started. Also if it is too early, or too late."""
    before = place.vc.front.connections()
    process = subprocess.Popen(place.argv("never", "snapshot"), start_new_session=True)
    try:
        process.wait(random.Random(seed).uniform(0.5, 2.5))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)
    # Or a snapshot that it asked for may come after `undo`.
    place.vc.front.wait_until_left(since=before)
    for job in v2v.list_jobs(place.jobs):
        v2v.undo(job.job_id, jobs=place.jobs)
    assert place.is_as_before()
    assert len(CONTENT) == 8 * MiB


def test_the_command_takes_back_what_it_lists(place: Place) -> None:
    killed(place.argv(WHILE_COPYING, "snapshot"))
    job = place.job.job_id

    def command(*words: str, verb: str = "undo") -> subprocess.CompletedProcess[str]:
        program = Path(sys.executable).with_name("v2v")
        argv = [str(program), verb, *words, "--jobs-dir", str(place.jobs)]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60)

    what = f"snapshot v2v-{job} of web"
    assert "`v2v undo --list`" in command(verb="jobs").stdout
    assert command("--list").stdout == f"{job}  interrupted  {what}\n"
    assert command("--list", job).stdout == f"{job}  interrupted  {what}\n"
    wrong = command(job, "-ip", "/nowhere")
    assert wrong.returncode == 2 and "id: password-file" in wrong.stderr
    assert place.snapshots()
    done = command(job)
    assert (done.returncode, done.stdout) == (0, f"undone: {what}\n")
    assert place.is_as_before()
    assert command(job).stdout == f"{job}: nothing to undo\n"
    assert "undo" not in command(verb="jobs").stdout


def test_a_job_that_runs_is_not_undone(place: Place) -> None:
    caught: list[v2v.V2VError] = []

    def emit(event: Event) -> None:
        if isinstance(event, StepStarted) and event.step == "copied:0":
            with pytest.raises(v2v.V2VError) as error:
                v2v.undo(place.job.job_id, jobs=place.jobs)
            caught.append(error.value)

    place.convert("snapshot", emit=emit)
    assert [error.id for error in caught] == ["job-running"]
