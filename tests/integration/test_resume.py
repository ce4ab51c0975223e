"""kill -9 at every step, then resume: nothing finished is repeated, nothing is left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import v2v
from fixtures.partitions import first_partition
from tests.integration import processes
from v2v.api import list_jobs
from v2v.events import Event, StepFinished, StepStarted

DRIVER = Path(__file__).with_name("kill_at.py")

# Each moment, and the steps that must not be done again by `resume`.
MOMENTS = [
    ("step-started:source", []),
    ("step-finished:source", ["source"]),
    ("step-started:open", ["source"]),
    ("step-started:guest", ["source"]),
    ("step-started:convert:devices", ["source"]),
    ("step-finished:guest", ["source", "guest"]),
    ("step-started:disks", ["source", "guest"]),
    ("step-finished:disks", ["source", "guest", "disks"]),
    ("step-started:copied:0", ["source", "guest", "disks"]),
    ("copy-progress:", ["source", "guest", "disks"]),
    ("step-finished:copied:0", ["source", "guest", "disks", "copied:0"]),
    ("step-started:finalize", ["source", "guest", "disks"]),
    ("step-finished:finalize", ["source", "finalize"]),
]


@pytest.fixture(scope="module")
def undisturbed(
    guest_image: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """What a conversion leaves that nobody disturbs."""
    target = tmp_path_factory.mktemp("undisturbed")
    v2v.convert(guest_image("tiny-debian"), storage=target, name="guest", jobs=target / ".jobs")
    return results(target)


def results(target: Path) -> dict[str, bytes]:
    """The metadata, and every file of the guest as an independent tool reads it."""
    found = {}
    for path in target.iterdir():
        if path.suffix == ".xml":
            found[path.name] = path.read_bytes().replace(bytes(target), b"TARGET")
        elif path.name != ".jobs":
            found.update(guest_files(path))
    return found


def guest_files(disk: Path) -> dict[str, bytes]:
    """The files of the first partition, by debugfs on the raw bytes."""
    with TemporaryDirectory() as folder:
        source = f"{disk}?offset={first_partition(disk)}"
        subprocess.run(
            ["debugfs", "-R", f"rdump / {folder}", source], check=True, capture_output=True
        )
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        assert len(files) > 10, "debugfs read no guest"
        return {f"{disk.name}:{path.relative_to(folder)}": path.read_bytes() for path in files}


@pytest.mark.appliance
@pytest.mark.parametrize(("moment", "kept"), MOMENTS)
def test_killed_job_is_resumed(
    moment: str,
    kept: list[str],
    undisturbed: dict[str, bytes],
    guest_image: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    jobs, target = tmp_path / "jobs", tmp_path / "target"
    target.mkdir()
    guest = guest_image("tiny-debian")
    killed = subprocess.run(
        [sys.executable, str(DRIVER), moment, str(jobs), str(guest), str(target)], check=False
    )
    assert killed.returncode == -signal.SIGKILL, f"the job never came to {moment}"

    (job,) = list_jobs(jobs)
    tmp = str((job.folder / "tmp").readlink())
    assert job.state == "interrupted"
    assert processes.gone(tmp, str(job.folder)), processes.mentioning(tmp, str(job.folder))

    seen: list[Event] = []
    v2v.resume(job.job_id, jobs=jobs, emit=seen.append)
    started = {event.step for event in seen if isinstance(event, StepStarted)}
    reused = {event.step for event in seen if isinstance(event, StepFinished) and event.reused}
    assert not started.intersection(kept)
    assert "source" not in kept or "source" in reused
    assert results(target) == undisturbed
    assert not Path(tmp).exists()
    assert processes.gone(str(job.folder))
