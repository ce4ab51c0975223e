"""Jobs that are refused, and jobs in processes of their own, which are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.openstack_cloud import Cloud
from v2v import api
from v2v.errors import V2VError
from v2v.types import MiB

ROOT = Path(__file__).parents[3]


def make_guest(folder: Path, size: int = 6 * MiB) -> Path:
    """A disk with an empty partition table."""
    guest = folder / "web1"
    table = bytes(64) + b"\x55\xaa"
    guest.write_bytes(bytes(446) + table + os.urandom(size - 512))
    return guest


class KilledJob:
    """A job that was killed: in the copy, in an upload, or before a request of it is answered.

    kill: "copy", "upload", or a METHOD and a part of the PATH: "POST /volumes".
    """

    def __init__(
        self, folder: Path, mode: str, words: dict[str, str], cloud: Cloud, guest: Path, kill: str
    ) -> None:
        self.jobs = folder / "jobs"
        asked = {
            "mode": mode,
            "words": words,
            "guest": str(guest),
            "jobs": str(self.jobs),
            "kill": kill,
        }
        started = threading.Event()
        method, _, part = kill.partition(" ")

        def look(line: str) -> None:
            if line.startswith(f"{method} ") and part in line:
                started.wait()
                process.kill()

        if method == "upload":
            cloud.state.watch = look
        else:
            cloud.state.done = look
        argv = [sys.executable, "-m", "tests.outputs.openstack.job", json.dumps(asked)]
        process = subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE)
        started.set()
        _, said = process.communicate(timeout=120)
        cloud.state.watch = cloud.state.done = lambda line: None
        assert process.returncode == -signal.SIGKILL, said.decode()
        (self.job_id,) = [path.name for path in self.jobs.iterdir()]

    def discard(self) -> None:
        api.discard(self.job_id, jobs=self.jobs)

    def resume(self) -> api.Result:
        return api.resume(self.job_id, jobs=self.jobs, source_unchanged=True)


def refused(id: str, action: Any, *arguments: Any) -> V2VError:
    with pytest.raises(V2VError) as caught:
        action(*arguments)
    assert caught.value.id == id, caught.value
    assert caught.value.hint
    return caught.value
