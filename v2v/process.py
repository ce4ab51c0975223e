"""The only place that starts programs.

Programs get an argv list (never a shell), LC_ALL=C, and no secret in either argv or environment.
They run under `setpriv --pdeathsig`, so that they die with the thread that started them, even when
v2v is killed with SIGKILL; and in sessions of their own, so that Ctrl-C at the terminal is ours to
handle, in order. A command line that the user gave us is the exception: see `shell`.
"""

from __future__ import annotations

import logging
import os
import queue
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from v2v.cancel import Cancel
from v2v.errors import HostError, V2VError
from v2v.run import Run

log = logging.getLogger(__name__)

# The signal never comes if we died before setpriv asked for it; then the parent is another one.
UNLESS_ORPHANED = '[ "$PPID" = "$0" ] && exec "$@"'

# Names: for v2v alone, see v2v.password.
PASSWORD_VARIABLE = "V2V_PASSWORD"  # noqa: S105
OUTPUT_PASSWORD_VARIABLE = "V2V_OUTPUT_PASSWORD"  # noqa: S105
# For openstacksdk, which reads them in this process.
OPENSTACK_SECRETS = (
    "OS_PASSWORD",
    "OS_PASSCODE",
    "OS_TOKEN",
    "OS_ACCESS_TOKEN",
    "OS_APPLICATION_CREDENTIAL_SECRET",
    "OS_CLIENT_SECRET",
)

SERVERS = ("nbdkit", "qemu-nbd", "nbdfuse")  # what show disks; see ended_server
START_SECONDS = 60.0
AGAIN_SECONDS = 1.0  # then SIGTERM is sent again: a qemu-nbd that has just begun may forget one
STOP_SECONDS = 10.0  # a server that has not ended this long after SIGTERM is killed

# Tool: (Debian package, RPM package).
PACKAGES = {
    "nbdkit": ("nbdkit", "nbdkit"),
    "qemu-nbd": ("qemu-utils", "qemu-img"),
    "qemu-img": ("qemu-utils", "qemu-img"),
    "qemu-system-x86_64": ("qemu-system-x86", "qemu-system-x86-core"),
    "qemu-system-aarch64": ("qemu-system-arm", "qemu-system-aarch64-core"),
    "setpriv": ("util-linux", "util-linux"),
    "nbdfuse": ("libnbd-bin", "nbdfuse"),
    "fusermount3": ("fuse3", "fuse3"),
}


class ToolError(V2VError):
    """A program ended with an error, could not be started, or took too long."""

    exit_code = 3


def find_tool(name: str) -> str:
    """The path of a program, or an error that names its package."""
    path = shutil.which(name)
    if path is None:
        debian, rpm = PACKAGES.get(name, (name, name))
        raise HostError(
            f"{name} is not installed",
            id="tool-missing",
            hint=f"install it: apt-get install {debian}, or dnf install {rpm}",
        )
    return path


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    return {**_inherited(), "LC_ALL": "C", **(extra or {})}


def _inherited() -> dict[str, str]:
    """Our environment without the passwords that the user may have put there."""
    secret = (PASSWORD_VARIABLE, OUTPUT_PASSWORD_VARIABLE, *OPENSTACK_SECRETS)
    return {key: word for key, word in os.environ.items() if key not in secret}


def _dying_with_us(argv: Sequence[str], death_signal: str = "KILL") -> list[str]:
    guard = ["/bin/sh", "-c", UNLESS_ORPHANED, str(os.getpid())]
    return [find_tool("setpriv"), "--pdeathsig", death_signal, "--", *guard, *argv]


def run_tool(
    argv: Sequence[str],
    *,
    timeout: float = 600.0,
    cancel: Cancel | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and give what it printed. `timeout` is in seconds."""
    argv = [find_tool(argv[0]), *argv[1:]]
    log.debug("run: %s", argv)
    with subprocess.Popen(
        _dying_with_us(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=environment(env),
        start_new_session=True,
    ) as process:
        try:
            with (cancel or Cancel()).calling(process.kill):
                stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise ToolError(
                f"{Path(argv[0]).name} did not end within {timeout:.0f} s", id="tool-timeout"
            ) from None
        except BaseException:
            process.kill()
            raise
    if cancel:
        cancel.check()
    if check and process.returncode != 0:
        raise ToolError(
            f"{Path(argv[0]).name}: {last_line(stderr) or f'exit code {process.returncode}'}",
            id="tool-failed",
        )
    return subprocess.CompletedProcess(argv, process.returncode, stdout, stderr)


@contextmanager
def server(
    argv: Sequence[str],
    *,
    log_file: Path,
    pass_fds: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
    death_signal: str = "KILL",
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs for the length of the `with` block; its output goes to `log_file`.

    `death_signal` is what it gets when v2v dies: TERM for one that has to put something in order.
    """
    argv = [find_tool(argv[0]), *argv[1:]]
    log.debug("start: %s", argv)
    with log_file.open("ab") as output:
        process = subprocess.Popen(
            _dying_with_us(argv, death_signal),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=pass_fds,
            env=environment(env),
            start_new_session=True,
        )
    try:
        yield process
    finally:
        stop(process)


@contextmanager
def shell(command: str, values: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The user's own command line in sh: with our streams, at our terminal, `values` in its
    environment. What is left of it at the end of the block is ended."""
    log.debug("shell: %s", command)
    process = subprocess.Popen(
        _dying_with_us(["/bin/sh", "-c", command], "TERM"), env={**_inherited(), **values}
    )
    try:
        yield process
    finally:
        stop(process)


@contextmanager
def connected(command: str) -> Iterator[socket.socket]:
    """A socket to the user's own command line in sh, which reads and writes it; ended with it.

    It dies with us, not with the calling thread: connections are made anew in threads that end.
    """
    ours, theirs = socket.socketpair()
    started: queue.SimpleQueue[subprocess.Popen[bytes] | OSError] = queue.SimpleQueue()

    def hold() -> None:
        argv = _dying_with_us(["/bin/sh", "-c", command], "TERM")
        env = _inherited()
        try:
            process = subprocess.Popen(
                argv, stdin=theirs.fileno(), stdout=theirs.fileno(), env=env, start_new_session=True
            )
        except OSError as exc:
            started.put(exc)
            return
        started.put(process)
        process.wait()

    with ours:
        with theirs:
            threading.Thread(target=hold, daemon=True).start()
            process = started.get()
        if isinstance(process, OSError):
            raise process
        try:
            yield ours
        finally:
            ours.close()
            stop(process)


def ended_server() -> str | None:
    """The name of a server of ours that has ended although nobody stopped it."""
    for thread in Path("/proc/self/task").glob("*/children"):
        for child in _read_if_there(thread).split():
            status = _read_if_there(Path(f"/proc/{child}/stat"))  # PID (NAME) STATE ...
            name, _, rest = status.partition("(")[2].rpartition(")")
            if name in SERVERS and rest.split()[0] == "Z":
                return name
    return None


def _read_if_there(path: Path) -> str:
    """What is in a file of /proc; nothing once its thread or process is gone."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, twice if need be, then SIGKILL; returns when the process is gone."""
    for seconds in (AGAIN_SECONDS, STOP_SECONDS):
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            return
    log.warning("%s did not end after SIGTERM; killed", process.args)
    process.kill()
    process.wait()


def wait_until_ready(
    pid_file: Path,
    process: subprocess.Popen[bytes],
    log_file: Path,
    *,
    cancel: Cancel,
    seconds: float = START_SECONDS,
) -> None:
    """Wait until a server writes its pid file, which nbdkit and qemu-nbd do once they listen.

    A server that ends first is an error with its own last words.
    """
    name = log_file.stem
    deadline = time.monotonic() + seconds
    while not (pid_file.exists() and pid_file.stat().st_size):
        if process.poll() is not None:
            words = last_line(log_text(log_file)) or "it ended at once"
            raise ToolError(f"{name}: {words}", id="server-ended")
        if time.monotonic() > deadline:
            raise ToolError(f"{name} did not start within {seconds:.0f} s", id="server-timeout")
        cancel.wait(0.005)


def log_text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


@contextmanager
def nbd_server(
    argv: Sequence[str],
    pid_option: str,
    socket_option: str,
    *,
    run: Run,
    name: str,
    pass_fds: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
    seconds: float = START_SECONDS,
) -> Iterator[Path]:
    """An NBD server on a Unix socket of its own, which is yielded once it listens.

    The program's spelling of the two options is given; its output goes to log/NAME.log. What it
    needs to unpack goes to the job's folder, where there is room for the overlay as well.
    `seconds`: how long it may take to start.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=run.tmp))
    socket, pid_file = folder / "s", folder / "pid"
    argv = [argv[0], pid_option, str(pid_file), socket_option, str(socket), *argv[1:]]
    log_file = run.folder / "log" / f"{name}.log"
    try:
        own = {"TMPDIR": str(run.folder), **(env or {})}
        with server(argv, log_file=log_file, pass_fds=pass_fds, env=own) as process:
            wait_until_ready(pid_file, process, log_file, cancel=run.cancel, seconds=seconds)
            yield socket
    finally:
        shutil.rmtree(folder, ignore_errors=True)
