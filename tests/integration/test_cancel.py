"""Ctrl-C leaves no process, no mount and no half-named file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration import processes

DRIVER = Path(__file__).with_name("interrupt_at.py")


@pytest.mark.appliance
@pytest.mark.parametrize("step", ["open", "guest", "convert:launch", "ahead:0", "convert:devices"])
def test_interrupted_convert_leaves_nothing(
    step: str, guest_image: Callable[[str], Path], tmp_path: Path
) -> None:
    jobs, target = tmp_path / "jobs", tmp_path / "target"
    target.mkdir()
    words = ["convert", "-i", "disk", guest_image("tiny-debian"), "-o", "local", "-os", target]
    argv = [sys.executable, DRIVER, step, *words, "--jobs-dir", jobs]
    done = subprocess.run([*map(str, argv)], check=False, start_new_session=True)
    (folder,) = [path for path in jobs.iterdir() if not path.name.startswith(".")]
    assert done.returncode == 130, f"the step {step} never started"
    assert list(target.iterdir()) == []
    assert not list(folder.glob("*.qcow2*"))
    assert not list(folder.glob("copied-*"))
    assert not (folder / "tmp").is_symlink()
    assert processes.gone(str(folder), str(tmp_path)), processes.mentioning(str(tmp_path))
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


@pytest.mark.appliance
def test_a_cancelled_job_can_be_started_over(
    guest_image: Callable[[str], Path], tmp_path: Path
) -> None:
    import v2v

    cancel = v2v.Cancel()
    guest = guest_image("tiny-debian")

    def stop_at_copy(event: v2v.Event) -> None:
        if getattr(event, "step", "") == "copied:0":
            cancel.cancel()

    with pytest.raises(v2v.V2VError) as caught:
        v2v.convert(guest, storage=tmp_path, jobs=tmp_path / "j", emit=stop_at_copy, cancel=cancel)
    assert caught.value.id == "cancelled"
    (job,) = v2v.list_jobs(tmp_path / "j")
    assert job.state == "cancelled"
    assert [path.name for path in tmp_path.iterdir()] == ["j"]

    result = v2v.resume(job.job_id, jobs=tmp_path / "j")
    assert Path(result.guest.disks[0].location).stat().st_size == guest.stat().st_size
