"""-o rhv-upload: kill -9 at every moment, Ctrl-C, and a guest uploaded while it is converted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

import v2v
from fixtures.partitions import first_partition
from tests.contract.output_suite import write_random_disk
from tests.integration import processes
from tests.integration.guest_files import guest_files
from tests.ovirt_engine import Engine, ovirt_engine
from v2v.api import list_jobs
from v2v.types import MiB

DRIVER = Path(__file__).with_name("kill_at_upload.py")
V2V = Path(sys.executable).with_name("v2v")
SIZE = 24 * MiB

# What the engine has done when v2v dies, and never hears of.
MOMENTS = ["POST /disks", "POST /imagetransfers", "flush", "/finalize", "POST /vms"]
MOMENTS += ["/diskattachments", "/nics"]


@pytest.fixture(scope="module")
def installed() -> Iterator[Engine]:
    with ovirt_engine() as engine:
        yield engine


@pytest.fixture
def engine(installed: Engine) -> Engine:
    installed.recover()
    return installed


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "web.img"
    write_random_disk(path, SIZE, 7)
    with path.open("r+b") as file:
        file.seek(510)
        file.write(b"\x55\xaa")  # or it would not pass for a disk
    return path


def killed_job(engine: Engine, image: Path, jobs: Path, moment: str, *words: str) -> str:
    """Run a job until it is killed; gives its id."""
    options = [f"{flag}={word}" for flag, word in {**engine.words, "-os": "data"}.items()]
    flush = "2" if moment == "flush" else "0"
    argv = [sys.executable, DRIVER, str(jobs), str(image), flush, *options, *words]
    started: Future[subprocess.Popen[bytes]] = Future()

    def kill(what: str) -> None:
        if moment in what:
            started.result().kill()

    engine.model.faults.before_answer = kill
    process = subprocess.Popen(argv)
    started.set_result(process)
    assert process.wait(120) == -signal.SIGKILL, f"the job never came to {moment}"
    engine.model.faults.before_answer = None
    (job,) = list_jobs(jobs)
    assert job.state == "interrupted"
    assert processes.gone(str(job.folder)), processes.mentioning(str(job.folder))
    return job.job_id


def assert_complete(engine: Engine, image: Path, format: str) -> None:
    (disk,) = engine.model.disks.values()
    (vm,) = engine.model.vms.values()
    assert list(vm.disks) == [disk.id]
    assert disk.status == "ok"
    argv = ["qemu-img", "compare", "-f", "raw", "-F", format, image, disk.path]
    subprocess.run(argv, check=True, capture_output=True)
    assert_nothing_open(engine)


def assert_nothing_open(engine: Engine) -> None:
    phases = {one.phase for one in engine.model.transfers.values()}
    assert phases <= {"finished_success", "finished_cleanup"}


@pytest.mark.parametrize(("moment", "format"), [(m, "raw") for m in MOMENTS] + [("flush", "qcow2")])
def test_a_killed_job_is_resumed(
    engine: Engine, image: Path, tmp_path: Path, moment: str, format: str
) -> None:
    jobs = tmp_path / "jobs"
    job = killed_job(engine, image, jobs, moment, f"-of={format}")
    result = v2v.resume(job, jobs=jobs)
    assert_complete(engine, image, format)
    assert (result.copies[0].resumed > 0) == (moment == "flush")


@pytest.mark.parametrize(
    ("moment", "handed_over"),
    [("POST /disks", False), ("flush", False), ("/finalize", False), ("POST /vms", True)],
)
def test_a_killed_job_is_discarded(
    engine: Engine, image: Path, tmp_path: Path, moment: str, handed_over: bool
) -> None:
    jobs = tmp_path / "jobs"
    v2v.discard(killed_job(engine, image, jobs, moment), jobs=jobs)
    assert list_jobs(jobs) == []
    if handed_over:
        assert_complete(engine, image, "raw")
    else:
        assert engine.model.disks == {}
        assert_nothing_open(engine)


def test_ctrl_c_leaves_nothing(engine: Engine, image: Path, tmp_path: Path) -> None:
    words = [
        V2V,
        "convert",
        "-i",
        "disk",
        str(image),
        "--no-convert",
        "--jobs-dir",
        tmp_path / "jobs",
    ]
    words += ["-o", "rhv-upload", "-os", "data", "-oc", engine.url, "-op", engine.words["-op"]]
    words += ["-oo", f"rhv-cafile={engine.cafile}"]
    log = tmp_path / "stderr"
    started: Future[int] = Future()

    def interrupt(what: str) -> None:
        """The answer comes once v2v knows that it is to stop."""
        if what.endswith("/finalize") and "stopping" not in log.read_text():
            os.kill(started.result(), signal.SIGINT)
            while "stopping" not in log.read_text():
                time.sleep(0.02)

    engine.model.faults.before_answer = interrupt
    with log.open("w") as stderr:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=stderr, text=True)
    started.set_result(process.pid)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 130, out + log.read_text()
    assert engine.model.disks == {}
    assert_nothing_open(engine)


@pytest.mark.appliance
@pytest.mark.timeout(900)
def test_a_guest_that_is_uploaded_while_it_is_converted(
    engine: Engine, guest_image: Callable[[str], Path], tmp_path: Path
) -> None:
    """What the daemon has is read back and compared, and then read without v2v. That such a guest
    boots is shown where it is converted to files."""
    result = v2v.convert(
        guest_image("debian-12"),
        output="rhv-upload",
        name="demo",
        output_options={**engine.words, "-os": "data", "-of": "qcow2"},
        copy=v2v.CopyOptions(verify=1.0),
        jobs=tmp_path / "jobs",
    )
    assert result.copies[0].verified == 1.0
    (disk,) = engine.model.disks.values()
    raw = tmp_path / "raw"
    subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", disk.path], check=True)
    subprocess.run(["qemu-img", "convert", "-O", "raw", disk.path, raw], check=True)
    argv = ["e2fsck", "-fn", f"{raw}?offset={first_partition(raw)}"]
    subprocess.run(argv, check=True, capture_output=True)
    files = guest_files(raw)
    assert any(name.startswith("boot/vmlinuz-") for name in files)
    assert "usr/bin/vmtoolsd" not in files
