"""The appliance's life: what makes it end, and that it always does."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from conversion import handle
from conversion.handle import open_appliance, start_appliance
from tests.conversion.disks import blank, serve
from v2v.errors import Cancelled, GuestError, HostError
from v2v.job import ConversionOptions
from v2v.run import Run
from v2v.types import MiB

OPTIONS = ConversionOptions()
DEATH_SECONDS = 30.0  # libguestfs looks every 2 s whether its program still lives


def wait_for_end(pid: int) -> bool:
    """Wait until a process, not necessarily a child, has ended."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], DEATH_SECONDS)[0])
    finally:
        os.close(fd)


@pytest.fixture
def disk(tmp_path: Path, need_tool) -> Path:
    need_tool("qemu-nbd")
    return blank(tmp_path / "disk", 64 * MiB)


def test_an_emulator_that_does_not_work_is_told_with_its_own_words(
    disk, run, tmp_path, monkeypatch, capfd
):
    emulator = tmp_path / "qemu"
    emulator.write_text("#!/bin/sh\necho 'no such luck' >&2\nexit 1\n")
    emulator.chmod(0o755)
    monkeypatch.setenv("LIBGUESTFS_HV", str(emulator))
    with (
        serve([disk], run) as endpoints,
        pytest.raises(HostError) as caught,
        open_appliance(endpoints, OPTIONS, run),
    ):
        pass
    assert caught.value.id == "appliance-failed"
    assert "no such luck" in caught.value.message
    assert "v2v doctor" in (caught.value.hint or "")
    assert "\n" not in caught.value.message
    assert capfd.readouterr().err == ""  # libguestfs prints nothing by itself


def test_no_space_for_the_appliance_is_told(disk, run, small, monkeypatch):
    monkeypatch.setenv("LIBGUESTFS_CACHEDIR", str(small))
    with (
        serve([disk], run) as endpoints,
        pytest.raises(HostError, match="No space left on device") as caught,
        open_appliance(endpoints, OPTIONS, run),
    ):
        pass
    assert caught.value.id == "appliance-failed"
    assert f"make room in {small} and " in (caught.value.hint or "")


@pytest.mark.appliance
@pytest.mark.parametrize("words", ["launch", "supermin: ext2"], ids=["at once", "while it boots"])
def test_cancelling_a_launch_ends_it(disk, run, words):
    with (
        serve([disk], run) as endpoints,
        pytest.raises(Cancelled),
        start_appliance(endpoints, OPTIONS, run) as appliance,
    ):
        when_logged(run, words, run.cancel.cancel)
        appliance.result()
    assert not children()


def when_logged(run: Run, words: str, action: Callable[[], None]) -> None:
    """Do something from another thread as soon as the appliance's log has these words."""
    path = run.folder / "log" / "appliance.log"
    never = threading.Event()

    def wait() -> None:
        while words not in path.read_text(errors="replace"):
            never.wait(0.02)
        action()

    threading.Thread(target=wait, daemon=True).start()


@pytest.mark.appliance
def test_what_is_written_arrives_and_errors_are_ours(disk, run):
    with serve([disk], run) as endpoints:
        with open_appliance(endpoints, OPTIONS, run) as g:
            pid = g.get_pid()
            assert g.list_devices() == ["/dev/sda"]
            g.mkfs("ext4", "/dev/sda", label="written")
        assert wait_for_end(pid)
        log = (run.folder / "log" / "appliance.log").read_text()
        assert "mkfs" in log
        with pytest.raises(GuestError) as caught, open_appliance(endpoints, OPTIONS, run) as g:
            assert g.vfs_label("/dev/sda") == "written"
            g.mount("/dev/sda", "/no/such/place")
        assert caught.value.id == "appliance-call"
    assert not children()


@pytest.mark.appliance
def test_a_blocked_call_ends_when_cancelled(disk, run):
    with (
        serve([disk], run) as endpoints,
        pytest.raises(Cancelled),
        open_appliance(endpoints, OPTIONS, run) as g,
    ):
        pid = g.get_pid()
        when_logged(run, "sleep 500", run.cancel.cancel)
        g.debug("sh", ["sleep 500"])
    assert wait_for_end(pid)
    assert not children()


@pytest.mark.appliance
def test_an_appliance_that_dies_is_an_error_of_the_host(disk, run):
    with (
        serve([disk], run) as endpoints,
        pytest.raises(HostError) as caught,
        open_appliance(endpoints, OPTIONS, run) as g,
    ):
        pid = g.get_pid()
        when_logged(run, "sleep 500", lambda: os.kill(pid, signal.SIGKILL))
        g.debug("sh", ["sleep 500"])
    assert caught.value.id == "appliance-died"


@pytest.mark.appliance
def test_a_full_disk_under_the_overlays_does_not_hang(disk, run, monkeypatch):
    with (
        serve([disk], run) as endpoints,
        pytest.raises(HostError) as caught,
        open_appliance(endpoints, OPTIONS, run) as g,
    ):
        monkeypatch.setattr(handle, "LEAST_SPACE", 1 << 60)
        g.debug("sh", ["sleep 500"])
    assert caught.value.id == "no-space-jobs"
    assert not children()


PROGRAM = """
import sys
from pathlib import Path
from conversion.handle import open_appliance
from tests.conversion.disks import serve
from v2v.job import ConversionOptions
from v2v.run import Run

with Run.create(Path(sys.argv[1]), "killed") as run, serve([Path(sys.argv[2])], run) as endpoints:
    with open_appliance(endpoints, ConversionOptions(), run) as g:
        print(g.get_pid(), flush=True)
        sys.stdin.read()
"""


@pytest.mark.appliance
def test_no_appliance_outlives_a_killed_v2v(disk, tmp_path):
    argv = [sys.executable, "-c", PROGRAM, str(tmp_path / "jobs"), str(disk)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert Path(f"/proc/{pid}/cmdline").read_bytes()
        process.kill()
        process.wait()
        assert wait_for_end(pid)


def children() -> list[str]:
    """Programs this test process started that still run."""
    pids = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [Path(f"/proc/{pid}/comm").read_text() for pid in pids]
