"""`v2v open`: what it prints, what --run does, and how it ends."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.integration import processes
from v2v import nbdfuse
from v2v.cli.run_command import substituted, variables
from v2v.opening import OpenedDisk, OpenedGuest
from v2v.outputs._files import safe_name
from v2v.types import MiB

V2V = str(Path(sys.executable).with_name("v2v"))
SIZE = 4 * MiB


@pytest.fixture(autouse=True)
def tools(need_tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for tool in ("nbdkit", "nbdinfo"):
        need_tool(tool)
    monkeypatch.setenv("V2V_JOBS", str(tmp_path / "jobs"))


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return image(tmp_path / "vm.img")


def image(path: Path) -> Path:
    with path.open("wb") as stream:
        stream.truncate(SIZE)
        stream.seek(510)
        stream.write(b"\x55\xaa" + os.urandom(MiB))
    return path


@pytest.fixture
def fuse(tmp_path: Path, need_tool) -> Path:
    need_tool("nbdfuse")
    if not os.access("/dev/fuse", os.W_OK):
        pytest.skip("there is no /dev/fuse")
    return tmp_path / "fuse"


def v2v_open(*words: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [V2V, "open", *words],
        capture_output=True,
        text=True,
        env={**os.environ, **more},
        timeout=120,
    )


def run(command: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return v2v_open("-q", *words, "--run", command)


@contextmanager
def waiting(*words: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A command in a group of its own, as a terminal starts it."""
    argv = [V2V, "open", *map(str, words)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        argv, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as running:
        try:
            yield running
        finally:
            if running.poll() is None:
                running.kill()


def first_line(running: subprocess.Popen[str]) -> str:
    assert running.stdout is not None
    return running.stdout.readline()


def nothing_left(tmp_path: Path, *, killed: bool = False) -> bool:
    scratch = tmp_path / "jobs/.scratch"
    assert processes.gone(str(tmp_path)), processes.mentioning(str(tmp_path))
    assert not nbdfuse.mounted_below(tmp_path)
    return killed or list(scratch.iterdir()) == []


# --run --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "code"), [("true", 0), ("exit 7", 7), ("kill -9 $$", 137), ("no-such-cmd-x", 127)]
)
def test_the_exit_code_is_the_commands(command: str, code: int, disk, tmp_path) -> None:
    assert run(command, disk).returncode == code
    assert nothing_left(tmp_path)


def test_the_command_reads_the_disks(disk, tmp_path) -> None:
    other = image(tmp_path / "data.img")
    copy = tmp_path / "copy"
    done = run(
        f"for u in {{uris}}; do nbdinfo --size $u; done; nbdcopy {{uri1}} {copy}", disk, other
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [str(SIZE), str(SIZE)]
    assert copy.read_bytes() == other.read_bytes()


def test_stdout_is_the_commands_and_stdin_too(disk) -> None:
    done = subprocess.run(
        [V2V, "open", disk, "--run", "cat; echo told >&2"],
        input="given",
        capture_output=True,
        text=True,
    )
    assert done.stdout == "given"
    assert "Opening the source" in done.stderr and "told" in done.stderr


def test_command_lines_of_virt_v2v_open_work(disk) -> None:
    done = v2v_open("-i", "disk", "-if", "raw", disk, "--run", "echo --ro @@", "-v", "-x")
    assert done.returncode == 0
    flag, added, uri = done.stdout.split()
    assert (flag, added) == ("--ro", "-a") and uri.startswith("nbd:///?socket=")


def test_a_hostile_name_is_a_name_and_nothing_else(tmp_path, fuse) -> None:
    """However the user quotes it, and in a shell inside the shell too."""
    trap = tmp_path / "trap"
    name = f"$(touch {trap.name}) `touch {trap.name}`';touch {trap.name};'\";touch {trap.name};\""
    guest = image(tmp_path / f"{name}.img")
    command = (
        f"cd {tmp_path}; echo {{name}}; cmp {{file}} {shlex.quote(str(guest))} || exit 9;"
        "echo \"{name}\" '{name}' x{file}x \"{file}\" '{file}'; sh -c 'nbdinfo --size {uri}';"
        "sh -c 'echo {name}'"
    )
    done = run(command, guest, "--fuse", fuse)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == name
    assert done.stdout.splitlines()[-2:] == [str(SIZE), name]
    assert not trap.exists()


@given(name=st.text(max_size=40).map(safe_name))
@settings(max_examples=40, deadline=None)
def test_every_name_arrives_as_it_is(name: str) -> None:
    guest = OpenedGuest(name, (OpenedDisk("sda", SIZE, f"nbd://{name}"),))
    command = substituted("printf %s {name}", 1)
    env = {**os.environ, **variables(guest, name)}
    done = subprocess.run(["sh", "-c", command], env=env, capture_output=True, check=True)
    assert done.stdout == name.encode()


def test_what_is_substituted() -> None:
    assert substituted("@@", 2) == '-a "$V2V_ADD0" -a "$V2V_ADD1"'
    assert substituted("{uris} {uri} {uri1}", 2) == (
        '"$V2V_URI0" "$V2V_URI1" "$V2V_URI0" "$V2V_URI1"'
    )
    assert substituted("{files} {file1}", 2) == '"$V2V_FILE0" "$V2V_FILE1" "$V2V_FILE1"'


@pytest.mark.parametrize(
    "text", ["{0} {1}", "{}", "{x}", "a{2}", "{ name }", "{uri-}", "{uri00000}", "@", "{URI}"]
)
def test_other_braces_stay(text: str) -> None:
    assert substituted(text, 1) == text


def test_a_disk_that_is_not_there_is_told(disk, tmp_path) -> None:
    done = run("echo {uri1}", disk)
    assert done.returncode == 2
    assert "the last disk is number 0" in done.stderr
    assert "id: option-value" in done.stderr and done.stdout == ""
    assert nothing_left(tmp_path)


def test_files_without_fuse_are_told_before_anything_is_opened(tmp_path) -> None:
    done = run("cat {file}", tmp_path / "no-such-disk")
    assert done.returncode == 2
    assert "needs --fuse" in done.stderr


def test_ctrl_c_is_for_the_command(disk, tmp_path) -> None:
    """It decides whether to end; v2v waits for it, and cleans up then."""
    command = "trap 'trap - INT; nbdinfo --size {uri}; exit 5' INT; echo ready; read x"
    argv = [V2V, "open", "-q", str(disk), "--run", command]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        argv, stdin=pipe, stdout=pipe, text=True, start_new_session=True
    ) as running:
        assert first_line(running) == "ready\n"
        os.kill(running.pid, signal.SIGINT)
        assert first_line(running) == f"{SIZE}\n"
        assert running.wait(60) == 5
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_command_and_what_it_started(signum: int, disk, tmp_path) -> None:
    mark = tmp_path / "mark"
    command = f"sh -c 'echo ready; exec tail -n 0 -qf {disk}'; touch {mark}"
    with waiting("-q", disk, "--run", command) as one:
        assert first_line(one) == "ready\n"
        os.kill(one.pid, signum)
        assert one.wait(60) == 128 + signum
    assert not mark.exists()
    assert nothing_left(tmp_path)


# Waiting ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_waits_until_it_is_told_to_end(signum: int, disk, tmp_path, fuse) -> None:
    with waiting("--json", disk, "--fuse", fuse, "--writable") as running:
        told = json.loads(first_line(running))
        assert Path(told["disks"][0]["file"]).read_bytes() == disk.read_bytes()
        os.killpg(running.pid, signum)
        assert running.wait(60) == 0
    assert not fuse.exists()
    assert nothing_left(tmp_path)


def test_killed_it_leaves_no_process_and_no_mount(disk, tmp_path, fuse) -> None:
    with waiting("--json", disk, disk, "--fuse", fuse, "--writable") as running:
        told = json.loads(first_line(running))
        assert len(nbdfuse.mounted_below(fuse)) == 2
        running.kill()
    assert nothing_left(tmp_path, killed=True)
    # The next one takes away what is left of files, and may use the same folder.
    done = run("cmp {file} " + shlex.quote(str(disk)), disk, "--fuse", fuse)
    assert (done.returncode, done.stderr) == (0, "")
    assert not Path(told["disks"][0]["socket"]).parent.exists()
    assert nothing_left(tmp_path)


def test_killed_it_ends_the_command(disk, tmp_path) -> None:
    with waiting("-q", disk, "--run", f"echo ready; exec tail -n 0 -qf {disk}") as running:
        assert first_line(running) == "ready\n"
        running.kill()
    assert nothing_left(tmp_path, killed=True)


@pytest.mark.parametrize("tool", ["nbdkit", "nbdfuse"])
def test_a_server_that_dies_is_told(tool: str, disk, tmp_path, fuse) -> None:
    with waiting("-q", "--json", disk, "--fuse", fuse) as running:
        first_line(running)
        mentioned = processes.mentioning(str(disk), str(fuse))
        (pid,) = (line.split(":")[0] for line in mentioned if f": /usr/bin/{tool} " in line)
        os.kill(int(pid), signal.SIGKILL)
        _, error = running.communicate(timeout=120)
    assert (running.returncode, f"{tool}, which" in error) == (3, True)
    assert "id: open-server-ended" in error
    assert nothing_left(tmp_path)


def test_json(disk) -> None:
    with waiting("--json", disk) as running:
        told = json.loads(first_line(running))
        os.kill(running.pid, signal.SIGINT)
    (one,) = told.pop("disks")
    assert told == {"name": "vm", "writable": False}
    assert (one["name"], one["size"], one["file"]) == ("sda", SIZE, None)
    assert one["uri"] == f"nbd+unix:///?socket={one['socket']}"


def test_text_has_commands_that_work(disk, tmp_path) -> None:
    sockets = tmp_path / "a folder, with a comma"
    with waiting(disk, "--socket-dir", sockets) as running:
        assert running.stdout is not None
        lines = list(takewhile(lambda line: line != "Ctrl-C closes it.\n", running.stdout))
        assert lines[0] == "vm: 1 disk, read-only\n"
        (info,) = [line for line in lines if line.startswith("  nbdinfo ")]
        assert subprocess.run(info, shell=True, capture_output=True).returncode == 0
        (fish,) = [line for line in lines if line.startswith("  guestfish ")]
        assert shlex.split(fish)[1:3] == ["--ro", "--format=raw"]
        os.kill(running.pid, signal.SIGINT)
        assert running.wait(60) == 0


def test_quiet_says_nothing(disk, tmp_path) -> None:
    sockets = tmp_path / "s"
    with waiting("-q", "--socket-dir", sockets, disk, "--run", "echo ready; read x") as running:
        assert first_line(running) == "ready\n"
    assert nothing_left(tmp_path, killed=True)


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "id", "code"),
    [
        ("", "guest-missing", 2),
        ("x --json --run true", "option-conflict", 2),
        ("x --tcp 0.0.0.0:10809", "open-insecure", 2),
        ("x --tcp nowhere", "option-value", 2),
        ("x --tls-psk-file k", "option-conflict", 2),
        ("/no/such/disk", "source-missing", 4),
        ("x --print-source", "option-unknown", 2),
        ("x -o local", "option-unknown", 2),
    ],
)
def test_what_is_refused(words: str, id: str, code: int) -> None:
    done = v2v_open(*words.split())
    assert done.returncode == code, done.stderr
    assert f"id: {id}\n" in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""


def test_options_of_the_input_are_told() -> None:
    assert "allow-backing" in v2v_open("-i", "disk", "-io", "?").stdout


def test_sockets_in_the_way_are_told_to_the_user(disk, tmp_path) -> None:
    (tmp_path / "sda").touch()
    done = v2v_open(disk, "--socket-dir", tmp_path)
    assert done.returncode == 3
    assert "id: open-folder" in done.stderr
