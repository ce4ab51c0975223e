"""kill -9 at every step, then resume: nothing finished is repeated, nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import v2v
from tests.integration import processes
from tests.integration.guest_files import guest_files
from tests.sshd import Sshd, sshd
from v2v.api import list_jobs
from v2v.copy import clone
from v2v.events import Event, StepFinished, StepStarted, Warned
from v2v.types import MiB

DRIVER = Path(__file__).with_name("kill_at.py")

# Each moment, and the steps that must not be done again by `resume`.
MOMENTS = [
    ("step-started:source", []),
    ("step-finished:source", ["source"]),
    ("step-started:open", ["source"]),
    ("step-started:guest", ["source"]),
    ("step-started:convert:devices", ["source"]),
    ("step-started:disks", ["source"]),  # from here on the guest is converted and copied
    ("step-finished:disks", ["source", "disks"]),
    ("step-started:ahead:0", ["source", "disks"]),
    ("copy-progress:", ["source", "disks"]),
    ("step-finished:ahead:0", ["source", "disks"]),
    ("step-finished:guest", ["source", "guest", "disks"]),
    ("step-started:copied:0", ["source", "guest", "disks"]),
    ("step-started:check-source", ["source", "guest", "disks", "copied:0"]),
    ("step-finished:copied:0", ["source", "guest", "disks", "copied:0"]),
    ("step-started:finalize", ["source", "guest", "disks"]),
    ("step-finished:finalize", ["source", "finalize"]),
]


@pytest.fixture(scope="module")
def undisturbed(
    guest_image: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, object]:
    """What a conversion leaves that nobody disturbs."""
    target = tmp_path_factory.mktemp("undisturbed")
    v2v.convert(guest_image("tiny-debian"), storage=target, name="guest", jobs=target / ".jobs")
    return results(target)


def results(target: Path) -> dict[str, object]:
    """The metadata, and every file of the guest as an independent tool reads it."""
    found: dict[str, object] = {}
    for path in target.iterdir():
        if path.suffix == ".xml":
            found[path.name] = path.read_bytes().replace(bytes(target), b"TARGET")
        elif path.name != ".jobs":
            found[path.name] = guest_files(path)
    return found


@pytest.mark.appliance
@pytest.mark.parametrize(("moment", "kept"), MOMENTS)
def test_killed_job_is_resumed(
    moment: str,
    kept: list[str],
    undisturbed: dict[str, object],
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


INTERVAL = 8 * MiB
DISK = 96 * MiB
IN_FLIGHT = 2 * clone.STEP  # on the way when the job is killed, at most


@pytest.mark.parametrize("format", ["raw", "qcow2"])
@pytest.mark.parametrize("flush", [1, 2, 4])
def test_killed_copy_goes_on_where_it_was(
    flush: int, format: str, tmp_path: Path, need_tool: Callable[[str], str]
) -> None:
    """It was killed before the n-th flush: n - 1 intervals are safe, and are not read again."""
    for tool in ("nbdkit", "qemu-nbd", "qemu-img"):
        need_tool(tool)
    guest, target, jobs = tmp_path / "guest.img", tmp_path / "target", tmp_path / "jobs"
    guest.write_bytes(bytes(510) + b"\x55\xaa" + os.urandom(DISK - 512))
    target.mkdir()
    words = ["--no-convert", "--checkpoint", str(INTERVAL), *["--qcow2"] * (format == "qcow2")]
    argv = [sys.executable, str(DRIVER), f"flush:{flush}", str(jobs), str(guest), str(target)]
    assert subprocess.run([*argv, *words], check=False).returncode == -signal.SIGKILL

    assert processes.gone(str(tmp_path))  # or the image may still be locked
    (job,) = list_jobs(jobs)
    (working,) = target.iterdir()
    written = working.stat().st_blocks * 512
    (copy,) = v2v.resume(job.job_id, jobs=jobs).copies
    assert copy.resumed >= (flush - 1) * INTERVAL
    assert copy.resumed + copy.data == DISK
    assert written - copy.resumed <= 2 * INTERVAL + IN_FLIGHT
    assert content(target / "guest-sda", format) == guest.read_bytes()


def of_ssh(host: Sshd) -> list[str]:
    return ["-io", f"ssh-known-hosts={host.known_hosts}", "-io", f"ssh-identity={host.identity}"]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("ssh")) as server:
        yield server


def killed_in_mid_copy(host: Sshd, folder: Path, need_tool: Callable[[str], str]) -> Path:
    """Half of it is safe at the target. The source."""
    for tool in ("nbdkit", "qemu-nbd", "qemu-img"):
        need_tool(tool)
    guest, target, jobs = folder / "guest.img", folder / "target", folder / "jobs"
    guest.write_bytes(bytes(510) + b"\x55\xaa" + os.urandom(DISK - 512))
    target.mkdir()
    argv = [sys.executable, str(DRIVER), "flush:6", str(jobs), host.uri(guest), str(target)]
    words = ["--no-convert", "--checkpoint", str(INTERVAL), *of_ssh(host)]
    assert subprocess.run([*argv, *words], check=False).returncode == -signal.SIGKILL
    assert processes.gone(str(folder))
    return guest


@pytest.mark.parametrize("grown", [0, MiB], ids=["", "grown"])
def test_a_killed_copy_over_ssh_begins_again(
    grown: int, host: Sshd, tmp_path: Path, need_tool: Callable[[str], str]
) -> None:
    """Nothing tells that the file has other content now."""
    guest = killed_in_mid_copy(host, tmp_path, need_tool)
    guest.write_bytes(bytes(510) + b"\x55\xaa" + os.urandom(DISK + grown - 512))
    (job,) = list_jobs(tmp_path / "jobs")
    seen: list[Event] = []
    (copy,) = v2v.resume(job.job_id, jobs=tmp_path / "jobs", emit=seen.append).copies
    assert (tmp_path / "target" / "guest-sda").read_bytes() == guest.read_bytes()
    assert copy.resumed == 0
    (warning,) = [event for event in seen if isinstance(event, Warned)]
    assert warning.id == "source-unverifiable"
    assert host.uri(guest) in warning.text


def test_a_killed_copy_over_ssh_goes_on_if_the_user_says_that_nothing_changed(
    host: Sshd, tmp_path: Path, need_tool: Callable[[str], str]
) -> None:
    guest = killed_in_mid_copy(host, tmp_path, need_tool)
    jobs = tmp_path / "jobs"
    (job,) = list_jobs(jobs)
    words = ["resume", job.job_id, "--source-unchanged", "--json", "--jobs-dir", str(jobs)]
    argv = [Path(sys.executable).with_name("v2v"), *words]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    assert "source-unverifiable" not in done.stdout + done.stderr
    assert (tmp_path / "target" / "guest-sda").read_bytes() == guest.read_bytes()
    report = json.loads((job.folder / "report.json").read_text())
    assert report["copies"][0]["resumed"] >= 5 * INTERVAL


def content(disk: Path, format: str) -> bytes:
    if format == "raw":
        return disk.read_bytes()
    subprocess.run(["qemu-img", "check", "-q", "-r", "leaks", "-f", format, disk], check=True)
    raw = disk.with_suffix(".raw")
    subprocess.run(["qemu-img", "convert", "-f", format, "-O", "raw", disk, raw], check=True)
    return raw.read_bytes()
