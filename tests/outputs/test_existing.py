"""Jobs that write to disks which are there already, and that are resumed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import nbd_server
from tests.fakes.nbd_server import Act, Answer, Command, NbdServer
from tests.fakes.nbd_wire import Request
from tests.outputs.migrating import Jobs, refused
from tests.places import loop_devices, nbd_servers
from v2v.copy.ledger import Ledger
from v2v.extents import Extent
from v2v.types import MiB

FULL = bytes(510) + b"\x55\xaa" + os.urandom(16 * MiB - 512)  # a disk, by its first sector
V2V = [sys.executable, "-c", "from v2v.cli.start import main; raise SystemExit(main())"]


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NbdServer]:
    """A source of 16 MiB whose end cannot be read; what is copied is made durable every MiB, and
    some of it is recorded before the end is read."""
    recorded, record = threading.Event(), Ledger.record

    def told(ledger: Ledger, phase: str, extents: Iterable[Extent]) -> None:
        record(ledger, phase, extents)
        recorded.set()

    monkeypatch.setattr(Ledger, "record", told)
    monkeypatch.setattr("v2v.copy.target.CHECKPOINT", MiB)
    monkeypatch.setattr("v2v.copy.fetch.RETRY_SECONDS", (0.01,))
    with nbd_server.serve(tmp_path, FULL, "broken") as one:
        one.fault(Act.ERROR, start=12 * MiB, end=13 * MiB)
        fail_late(one, monkeypatch, recorded.is_set)
        yield one


def fail_late(server: NbdServer, monkeypatch: pytest.MonkeyPatch, when: Callable[[], bool]) -> None:
    """The end is read when it is so."""
    handle = server.handle

    def late(request: Request, *more: Any) -> Answer:
        end = request.offset + request.length
        if request.command is Command.READ and request.offset < 13 * MiB and end > 12 * MiB:
            wait_until(when)
        return handle(request, *more)

    monkeypatch.setattr(server, "handle", late)


def wait_until(so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(params=["nbd", "block"])
def half(request: pytest.FixtureRequest, broken, tmp_path, need_tool) -> Iterator[Half]:
    """A job that failed in the middle, as its source could not be read; now it can."""
    for name in ("nbdkit", "qemu-nbd", "losetup"):
        need_tool(name)
    jobs = Jobs(tmp_path / "jobs", request.param)
    file = tmp_path / "loop-0"
    with loop_devices(tmp_path) as make, nbd_servers(tmp_path) as servers:
        if request.param == "block":
            place = str(make(bytes(16 * MiB)))
        else:
            file.write_bytes(bytes(16 * MiB))
            place = servers.qemu_nbd(file)
        source = f"nbd+unix:///?socket={broken.path}"
        refused("copy-read", lambda: jobs.convert(source, {"-os": place}))
        broken.faults.clear()
        yield Half(jobs, place)


class Half:
    def __init__(self, jobs: Jobs, place: str) -> None:
        self.jobs = jobs
        self.place = place

    def write(self, content: bytes, file: Path) -> None:
        """By the door that the place itself has."""
        target = Path(self.place) if self.place.startswith("/") else file
        with target.open("r+b") as stream:
            stream.write(content)

    def content(self, file: Path) -> bytes:
        target = Path(self.place) if self.place.startswith("/") else file
        return target.read_bytes()


def test_what_is_begun_is_kept(half: Half, tmp_path: Path) -> None:
    result = half.jobs.resume()
    assert result.copies[0].resumed >= MiB
    assert half.content(tmp_path / "loop-0") == FULL
    assert result.guest.metadata == str(result.folder / f"{result.guest.name}.xml")
    assert Path(result.guest.metadata or "").is_file()


def test_another_disk_in_its_place_is_not_gone_on_with(half: Half, tmp_path: Path) -> None:
    """A server was started with another disk, or the system calls another device by this name."""
    half.write(bytes(16 * MiB), tmp_path / "loop-0")
    error = refused("target-changed", half.jobs.resume)
    assert "disk 1" in error.message
    assert half.content(tmp_path / "loop-0") == bytes(16 * MiB)


@pytest.fixture
def unrecorded(half: Half, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Half:
    """The same, of a host that lost its power before anything was recorded, and is up again."""
    for ledger in half.jobs.folder.glob("*/copied-*"):
        ledger.write_bytes(b"")
    boot = tmp_path / "boot_id"
    boot.write_text("another\n")
    monkeypatch.setattr("v2v.targets.device.BOOT_ID", boot)
    return half


def test_what_was_not_recorded_when_the_host_went_down_is_written_again(
    unrecorded: Half, tmp_path: Path
) -> None:
    assert any(unrecorded.content(tmp_path / "loop-0"))
    unrecorded.jobs.resume()
    assert unrecorded.content(tmp_path / "loop-0") == FULL


def test_another_disk_that_has_the_name_when_the_host_is_up_again_is_kept(
    unrecorded: Half, tmp_path: Path
) -> None:
    other = os.urandom(4096) + bytes(len(FULL) - 4096)
    unrecorded.write(other, tmp_path / "loop-0")
    refused("target-changed", unrecorded.jobs.resume)
    assert unrecorded.content(tmp_path / "loop-0") == other


def test_a_finished_job_left_no_doubt(half: Half, tmp_path: Path) -> None:
    """It is done, whatever is written there afterwards."""
    first = half.jobs.resume()
    half.write(b"a guest ran", tmp_path / "loop-0")
    assert half.jobs.resume().guest == first.guest
    assert half.content(tmp_path / "loop-0").startswith(b"a guest ran")


def test_a_disk_that_is_copied_is_compared_as_long_as_others_are_not(
    broken, tmp_path, monkeypatch
) -> None:
    disk, jobs = tmp_path / "web.img", Jobs(tmp_path / "jobs", "nbd")
    disk.write_bytes(FULL)
    with nbd_servers(tmp_path) as servers:
        files = [tmp_path / "first", tmp_path / "second"]
        for file in files:
            file.write_bytes(bytes(len(FULL)))
        words = {"-oo disk": "\0".join(servers.qemu_nbd(file) for file in files)}
        sources = (disk, f"nbd+unix:///?socket={broken.path}")
        fail_late(broken, monkeypatch, lambda: files[0].read_bytes() == FULL)
        refused("copy-read", lambda: jobs.convert_all(sources, words))
        broken.faults.clear()
        files[0].write_bytes(bytes(len(FULL)))  # another disk has its address now
        error = refused("target-changed", jobs.resume)
    assert "disk 1" in error.message


# Killed before anything was recorded --------------------------------------------------------------


@pytest.fixture
def killed(tmp_path: Path, need_tool) -> Iterator[Killed]:
    """A job that was killed when it had written some of a disk, and recorded nothing."""
    need_tool("nbdkit")
    disk = tmp_path / "web.img"
    disk.write_bytes(FULL)
    with nbd_server.serve(tmp_path, bytes(len(FULL)), "target") as target:
        target.extents = target.true_extents
        target.fault(Act.STALL, Command.WRITE, start=8 * MiB)
        uri = f"nbd+unix:///?socket={target.path}"
        argv = [*V2V, "convert", "--no-convert", "-q", disk, "-o", "nbd", "-os", uri]
        jobs = Jobs(tmp_path / "jobs", "nbd")
        with subprocess.Popen([*argv, "--jobs-dir", jobs.folder]) as job:
            target.wait_until_stalled(120)
            job.kill()
        wait_until(lambda: not target.connections)  # what it had sent is still read
        target.release()
        yield Killed(jobs, target)


class Killed:
    def __init__(self, jobs: Jobs, target: NbdServer) -> None:
        self.jobs = jobs
        self.target = target


def test_what_a_killed_job_wrote_is_written_again(killed: Killed) -> None:
    assert any(killed.target.content)
    killed.jobs.resume()
    assert killed.target.content == FULL


def test_another_disk_in_the_place_of_a_killed_job_is_kept(killed: Killed) -> None:
    """Nothing tells one NBD export from another but what it holds."""
    other = os.urandom(4096) + bytes(len(FULL) - 4096)
    killed.target.reset(other)
    refused("target-changed", killed.jobs.resume)
    assert killed.target.content == other


def test_a_source_that_changed_meanwhile_is_copied_over_it(killed: Killed, tmp_path: Path) -> None:
    """What the target holds is the job's own, of the source as it was."""
    other = FULL[:512] + bytes(reversed(FULL[512:]))
    (tmp_path / "web.img").write_bytes(other)
    killed.jobs.resume()
    assert killed.target.content == other
