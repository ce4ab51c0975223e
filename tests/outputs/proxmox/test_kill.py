"""kill -9, whenever: nothing unknown is left at the server, and what was copied is not lost."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.fakes.proxmox.state import Hold
from tests.outputs.migrating import Jobs
from tests.proxmox_host import Host
from v2v import api
from v2v.cancel import Cancel
from v2v.errors import Cancelled
from v2v.types import MiB

ROOT = Path(__file__).parents[3]
SECONDS = 60.0
BEGUN = ("upload", "copy", "imports")  # where a job can be killed while the server works for it


class Doomed:
    def __init__(self, host: Host, folder: Path) -> None:
        self.host = host
        self.jobs = folder / "jobs"
        self.guest = folder / "disk.img"
        data = random.Random(1).randbytes(12 * MiB - 512)
        self.content = bytes(510) + b"\x55\xaa" + data  # a boot sector comes first
        self.guest.write_bytes(self.content)

    @contextmanager
    def killed_at(self, hold: Hold) -> Iterator[str]:
        """Runs the job until the server waits at `hold`, and kills it. Gives what all could see
        of it then: arguments and environment of its processes."""
        hold.close()
        script = Path(__file__).with_name("job.py")
        words = json.dumps(self.host.words())
        process = subprocess.Popen(
            [sys.executable, script, self.guest, self.jobs, words],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )
        try:
            while not hold.reached.wait(0.1):
                assert process.poll() is None
            self._wait_until_told(hold, process)
            seen = visible(process.pid)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        try:
            yield seen
        finally:
            hold.open()

    def _wait_until_told(self, hold: Hold, process: subprocess.Popen[bytes]) -> None:
        """It has written down which task makes the VM once it asks how that is."""
        server = self.host.server
        making = hold is server.faults.imports
        while making and not any(":qmcreate:" in line for line in server.requests):
            assert process.poll() is None

    @property
    def job(self) -> str:
        (job,) = api.list_jobs(self.jobs)
        return job.job_id

    def check_arrived(self) -> None:
        folder = self.host.server.storages["local"].folder / "images"
        (image,) = folder.rglob("*.qcow2")
        raw = image.with_suffix(".raw")
        subprocess.run(["qemu-img", "convert", "-O", "raw", image, raw], check=True)
        assert raw.read_bytes() == self.content
        assert list(self.host.server.vms) == [100]
        self.check_clear()

    def check_clear(self) -> None:
        folder = self.host.server.folder
        assert not list(folder.glob("*/import/*"))
        assert not list(folder.glob("pveupload-*"))


def visible(pid: int) -> str:
    found = []
    for process in Path("/proc").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # another one, that just ended
            if process.name.isdecimal() and os.getsid(int(process.name)) == pid:
                found += [(process / name).read_bytes() for name in ("cmdline", "environ")]
    return b"".join(found).decode("latin-1")


@pytest.fixture
def doomed(host, tmp_path, need_tool) -> Doomed:
    for tool in ("nbdkit", "qemu-nbd", "qemu-img"):
        need_tool(tool)
    return Doomed(host, tmp_path)


@pytest.mark.parametrize("where", BEGUN)
def test_a_killed_job_is_resumed(doomed: Doomed, where: str) -> None:
    faults = doomed.host.server.faults
    with doomed.killed_at(getattr(faults, where)) as seen:
        assert str(doomed.host.password) in seen  # the file's name is
        assert doomed.host.server.passwords["root@pam"] not in seen
    doomed.host.server.wait_idle(SECONDS)
    Jobs(doomed.jobs, "proxmox").resume()
    doomed.check_arrived()
    uploads = [line for line in doomed.host.server.requests if line.endswith("/upload")]
    assert len(uploads) == (1 if where == "imports" else 2)


@pytest.mark.parametrize("where", BEGUN)
def test_a_killed_job_is_discarded(doomed: Doomed, where: str) -> None:
    """While the server still works for it: that is stopped."""
    with doomed.killed_at(getattr(doomed.host.server.faults, where)):
        if where == "upload":  # it knows that the client is gone when it reads on
            doomed.host.server.faults.upload.open()
            doomed.host.server.wait_idle(SECONDS)
        api.discard(doomed.job, jobs=doomed.jobs)
    assert doomed.host.server.vms == {}
    doomed.check_clear()
    assert not list(doomed.host.server.folder.glob("*/images/*/*"))


@pytest.mark.parametrize("where", ["copy", "imports"])
def test_a_cancelled_job_clears(doomed: Doomed, where: str) -> None:
    """Ctrl-C while the server works: that is stopped, and what it made is removed."""
    hold, cancel = getattr(doomed.host.server.faults, where), Cancel()
    hold.close()
    stopper = threading.Thread(target=lambda: hold.reached.wait(SECONDS) and cancel.cancel())
    stopper.start()
    with pytest.raises(Cancelled):
        Jobs(doomed.jobs, "proxmox").convert(
            doomed.guest, doomed.host.words(), name="web", cancel=cancel
        )
    stopper.join()
    assert doomed.host.server.vms == {}
    doomed.check_clear()
