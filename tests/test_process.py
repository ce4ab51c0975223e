"""Starting and ending programs: they end with us, however we end."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from v2v import process
from v2v.cancel import Cancel
from v2v.errors import Cancelled, HostError
from v2v.process import ToolError
from v2v.run import Run


def ended(pid: int, seconds: float = 60) -> bool:
    """Wait for a process that may not be our child."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], seconds)[0])
    finally:
        os.close(fd)


def test_output_of_a_tool() -> None:
    assert process.run_tool(["echo", "a b"]).stdout == "a b\n"


def test_messages_are_in_english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert process.run_tool(["env"]).stdout.count("LC_ALL=C\n") == 1


def test_failure_is_told_with_the_last_words() -> None:
    with pytest.raises(ToolError, match="ls: cannot access '/none'") as caught:
        process.run_tool(["ls", "/none"])
    assert caught.value.id == "tool-failed"
    assert process.run_tool(["ls", "/none"], check=False).returncode == 2


def test_a_tool_that_takes_too_long_is_killed() -> None:
    with pytest.raises(ToolError) as caught:
        process.run_tool(["sleep", "60"], timeout=0.1)
    assert caught.value.id == "tool-timeout"


def test_cancel_ends_a_tool() -> None:
    cancel = Cancel()
    threading.Timer(0.05, cancel.cancel).start()
    with pytest.raises(Cancelled):
        process.run_tool(["sleep", "60"], cancel=cancel)


def test_ctrl_c_at_the_terminal_does_not_reach_a_tool() -> None:
    fields = process.run_tool(["cat", "/proc/self/stat"]).stdout.split()
    assert int(fields[4]) != os.getpgrp()


def test_a_missing_tool_names_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(HostError, match="nbdkit is not installed") as caught:
        process.find_tool("nbdkit")
    assert "apt-get install nbdkit" in (caught.value.hint or "")


def test_a_server_ends_with_its_block(tmp_path: Path) -> None:
    with process.server(["sleep", "60"], log_file=tmp_path / "log") as one:
        assert one.poll() is None
    assert one.poll() is not None


def test_a_server_that_ignores_sigterm_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "STOP_SECONDS", 0.2)
    ready = tmp_path / "ready"
    script = f"trap '' TERM; echo > {ready}; while :; do sleep 60; done"
    with process.server(["sh", "-c", script], log_file=tmp_path / "log") as one:
        process.wait_until_ready(ready, one, tmp_path / "log", cancel=Cancel())
    assert one.returncode == -signal.SIGKILL


def test_a_server_that_forgets_a_sigterm_gets_another(tmp_path: Path) -> None:
    """As a qemu-nbd does between its pid file and its main loop."""
    ready, log = tmp_path / "ready", tmp_path / "log"
    script = f"trap 'trap \"exit 3\" TERM' TERM; echo > {ready}; while :; do sleep 0.1; done"
    with process.server(["sh", "-c", script], log_file=log) as one:
        process.wait_until_ready(ready, one, log, cancel=Cancel())
    assert one.returncode == 3


def test_a_server_that_ends_at_once_tells_why(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    with (
        pytest.raises(ToolError, match="web: no disk") as caught,
        process.server(["sh", "-c", "echo no disk >&2; exit 1"], log_file=log) as one,
    ):
        process.wait_until_ready(tmp_path / "pid", one, log, cancel=Cancel())
    assert caught.value.id == "server-ended"


def test_a_server_that_never_listens(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with (
        pytest.raises(ToolError) as caught,
        process.server(["sleep", "60"], log_file=log) as one,
    ):
        process.wait_until_ready(tmp_path / "pid", one, log, cancel=Cancel(), seconds=0.1)
    assert caught.value.id == "server-timeout"
    assert one.poll() is not None


def test_a_server_that_ended_is_found_while_others_come_and_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their threads and processes may be gone when they are looked at."""
    short = tmp_path / "short"
    (tmp_path / "nbdkit").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "nbdkit").chmod(0o755)
    glob, read = Path.glob, Path.read_text

    def with_ended_thread(path: Path, pattern: str) -> list[Path]:
        return [path / "0" / "children", *glob(path, pattern)]

    def with_ended_child(path: Path, *args: str, **more: str) -> str:
        text = read(path, *args, **more)
        if path.name == "children" and str(other.pid) in text.split():
            other.kill()
            other.wait()
            short.touch()
        return text

    other = subprocess.Popen(["sleep", "60"])
    server = subprocess.Popen([tmp_path / "nbdkit"])
    os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "glob", with_ended_thread)
        patch.setattr(Path, "read_text", with_ended_child)
        found = process.ended_server()
    assert short.exists()
    assert found == "nbdkit"
    assert server.wait() == 1
    assert process.ended_server() is None


def test_the_first_error_is_not_hidden(tmp_path: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        process.server(["sh", "-c", "exit 3"], log_file=tmp_path / "log"),
    ):
        raise ZeroDivisionError


PARENT = """
import sys
from pathlib import Path
from v2v import nbdkit, qemu_img, qemu_nbd
from v2v.run import Run
from v2v.types import DiskFormat
with Run.create(Path(sys.argv[1]), "x") as run:
    image = run.folder / "a.qcow2"
    qemu_img.create(image, DiskFormat.QCOW2, 1 << 20)
    options = qemu_nbd.image_options(image, DiskFormat.QCOW2)
    with (
        nbdkit.serve("memory", ["1M"], run=run, name="one"),
        qemu_nbd.serve(options, run=run, name="two"),
    ):
        print("ready", flush=True)
        sys.stdin.read()
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_servers_end_when_we_are_killed(tmp_path: Path, need_tool, end: signal.Signals) -> None:
    need_tool("nbdkit")
    need_tool("qemu-nbd")
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as parent:
        assert parent.stdout and parent.stdout.readline() == b"ready\n"
        tasks = Path(f"/proc/{parent.pid}/task").iterdir()
        servers = [int(p) for task in tasks for p in (task / "children").read_text().split()]
        assert len(servers) == 2
        parent.send_signal(end)
        assert all(ended(pid) for pid in servers)
        parent.wait(60)


def test_nothing_starts_when_we_were_killed_just_before(tmp_path: Path) -> None:
    stranger = ["sh", "-c", '"$@"; :', "sh"]  # as when init has become the parent
    argv = process._dying_with_us(["touch", str(tmp_path / "started")])
    subprocess.run([*stranger, *argv], check=True)
    assert list(tmp_path.iterdir()) == []
    subprocess.run(argv, check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["started"]


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path) -> None:
    with Run.create(tmp_path, "x") as run:
        folder = run.folder
    stale = tmp_path / "v2v-stale"
    stale.mkdir()
    (folder / "tmp").symlink_to(stale)
    with Run.open(folder) as run:
        assert not stale.exists()
        assert run.tmp.is_dir()
    assert not run.tmp.exists()
    assert not (folder / "tmp").is_symlink()
