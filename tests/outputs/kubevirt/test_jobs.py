"""Whole jobs into a cluster: from the command line, killed, resumed and discarded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.kubernetes import Fake, words
from v2v import api
from v2v.types import MiB


@pytest.fixture
def disk(tmp_path: Path, need_tool) -> Path:
    for tool in ("nbdkit", "qemu-nbd", "qemu-img"):
        need_tool(tool)
    path = tmp_path / "web.img"
    path.write_bytes(bytes(510) + b"\x55\xaa" + os.urandom(2 * MiB - 512))
    return path


def command(fake: Fake, disk: Path, jobs: Path, **more: str) -> list[str]:
    run = "from v2v.cli.start import main; main()"
    argv = [sys.executable, "-c", run, "convert", "-i", "disk", str(disk)]
    argv += ["--no-convert", "-o", "kubevirt", "--jobs-dir", str(jobs), "--progress", "json"]
    given = words(fake, jobs, **more)
    del given["-oo staging"]
    for flag, word in given.items():
        option, _, key = flag.partition(" ")
        argv += [option, f"{key}={word}" if key else word]
    return argv


class Held:
    """Uploads that come in are held until the block ends."""

    def __init__(self, fake: Fake) -> None:
        self._fake = fake
        self._fill = fake.fill
        self.arrived = threading.Event()
        self._go = threading.Event()

    def __enter__(self) -> Held:
        self._fake.fill = self._hold  # type: ignore[method-assign]
        return self

    def __exit__(self, *exc: object) -> None:
        self._fake.fill = self._fill  # type: ignore[method-assign]
        self._go.set()

    def _hold(self, *args: Any) -> tuple[int, str]:
        self.arrived.set()
        self._go.wait(60)
        return 503, "the pod was ended"


def killed(fake: Fake, disk: Path, jobs: Path) -> None:
    """A job that dies while it sends its disk."""
    with Held(fake) as held:
        process = subprocess.Popen(
            command(fake, disk, jobs), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            assert held.arrived.wait(120)
        finally:
            process.kill()
            process.wait()


def test_a_job_from_the_command_line(fake, disk, tmp_path) -> None:
    argv = command(fake, disk, tmp_path / "jobs", namespace="vms")
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert fake.image("web-sda", "vms").read_bytes() == disk.read_bytes()
    assert fake.names("virtualmachines", "vms") == ["web"]
    events = [json.loads(line) for line in done.stdout.splitlines()]
    sent = [one for one in events if one.get("phase") == "send"]
    assert sent and sent[-1]["done"] == sent[-1]["total"]
    assert fake.token not in done.stdout + done.stderr


def test_a_job_whose_vm_is_refused_sends_nothing_and_can_be_resumed(fake, disk, tmp_path) -> None:
    fake.refusal = "a policy"
    jobs = tmp_path / "jobs"
    done = subprocess.run(command(fake, disk, jobs), capture_output=True, text=True, check=False)
    assert done.returncode == 6 and "a policy" in done.stdout
    assert fake.uploads == []
    fake.refusal = ""
    (job,) = api.list_jobs(jobs)
    api.resume(job.job_id, jobs=jobs)
    assert fake.image("web-sda").read_bytes() == disk.read_bytes()


def test_a_killed_job_is_resumed(fake, disk, tmp_path) -> None:
    jobs = tmp_path / "jobs"
    killed(fake, disk, jobs)
    (job,) = api.list_jobs(jobs)
    api.resume(job.job_id, jobs=jobs)
    assert fake.image("web-sda").read_bytes() == disk.read_bytes()
    assert fake.names("virtualmachines") == ["web"]
    assert fake.names("datavolumes") == ["web-sda"]


def test_a_killed_job_is_discarded(fake, disk, tmp_path) -> None:
    jobs = tmp_path / "jobs"
    killed(fake, disk, jobs)
    assert fake.names("datavolumes") == ["web-sda"]
    (job,) = api.list_jobs(jobs)
    api.discard(job.job_id, jobs=jobs)
    assert fake.names("datavolumes") == fake.names("persistentvolumeclaims") == []
    assert api.list_jobs(jobs) == []
