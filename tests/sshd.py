"""A real SSH server on this host, for tests: keys of its own, and nobody else's settings."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path

import pytest

CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
PidFile {folder}/pid
AuthorizedKeysFile {folder}/client-key.pub
StrictModes no
UsePAM {questions}
KbdInteractiveAuthentication {questions}
PasswordAuthentication {password}
PermitRootLogin yes
MaxStartups {starts}
"""
SFTP = "Subsystem sftp internal-sftp"
PAM = "auth required pam_unix.so\naccount required pam_permit.so\nsession required pam_permit.so\n"
START_SECONDS = 60.0
ATTEMPTS = 5  # to find a port
PORT = "PORT-OF-THE-SERVER"  # until there is one


@dataclass(frozen=True, slots=True)
class Sshd:
    port: int
    known_hosts: Path
    identity: Path  # the client's key, which the server takes
    pid: int  # of the server, which is no child of this process
    user: str

    def uri(self, path: Path | str) -> str:
        return f"ssh://{self.user}@127.0.0.1:{self.port}{path}"

    def end_sessions(self) -> None:
        """Break the connections that there are; new ones are taken."""
        for pid in _children(self.pid):
            with suppress(ProcessLookupError):  # its parent, which ended before, took it along
                os.kill(pid, 9)


@contextmanager
def sshd(
    folder: Path,
    *,
    password: str | None = None,
    questions: bool = False,
    user: str = "",
    keys: Sequence[str] = ("ed25519",),
    sftp: bool = True,
    path: Path | None = None,
    starts: str = "100",
    extra: str = "",
) -> Iterator[Sshd]:
    """Serve until the block ends. `password`: the user may log in with it; needs root. So does
    another `user` of this host, who gets a shell there. `extra`: lines of the configuration.

    questions: the password is taken as the answer to a question only, which is ESXi's way.
    keys: kinds of its host keys; the first is known. path: the folder where programs are found.
    starts: MaxStartups, how many may log in at once.
    Skips where there is no sshd.
    """
    program = shutil.which("sshd", path="/usr/sbin:/usr/bin:/sbin")
    if program is None:
        pytest.skip("sshd is not installed (make setup installs it)")
    folder.mkdir(exist_ok=True)
    hosts = {f"host-key{number or ''}": kind for number, kind in enumerate(keys)}
    for name, kind in {**hosts, "client-key": "ed25519"}.items():
        argv = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(folder / name)]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    settings = CONFIG.format(
        port=PORT,
        folder=folder,
        starts=starts,
        password="no" if password is None or questions else "yes",
        questions="yes" if questions else "no",
    )
    # A home of its own: what this host's user has there for shells takes time at each program.
    env = " ".join([f"HOME={folder}", *([f"PATH={path}"] if path else [])])
    lines = [*(f"HostKey {folder / name}" for name in hosts), f"SetEnv {env}", SFTP * sftp, extra]
    text = settings + "\n".join(lines) + "\n"
    argv = [program, "-f", str(folder / "config"), "-E", str(folder / "log")]
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    if password is not None:
        argv = _with_password(folder, password, argv)
    if questions:
        (folder / "pam").write_text(PAM)
        argv = _with_file(folder / "pam", Path("/etc/pam.d/sshd"), argv)
    if user:
        argv = _with_shell(folder, user, argv)
    port, pid = _started(folder, argv, text)
    known = folder / "known_hosts"
    kind, key, *_ = (folder / "host-key.pub").read_text().split()
    known.write_text(f"[127.0.0.1]:{port} {kind} {key}\n")
    server = Sshd(port, known, folder / "client-key", pid, user or getuser())
    try:
        yield server
    finally:
        for pid in (*_children(server.pid), server.pid):
            with suppress(ProcessLookupError):  # it may have ended by itself
                os.kill(pid, 9)
        _wait_for(lambda: not runs(server.pid), "sshd does not end")


def _with_password(folder: Path, password: str, argv: list[str]) -> list[str]:
    made = subprocess.run(
        ["openssl", "passwd", "-6", "-stdin"],
        input=password,
        text=True,
        capture_output=True,
        check=True,
    )
    shadow = folder / "shadow"
    shadow.write_text(f"{getuser()}:{made.stdout.strip()}:19000:0:99999:7:::\nsshd:!:19000::::::\n")
    shadow.chmod(0o600)
    return _with_file(shadow, Path("/etc/shadow"), argv)


def _with_shell(folder: Path, user: str, argv: list[str]) -> list[str]:
    lines = [line.split(":") for line in Path("/etc/passwd").read_text().splitlines()]
    passwd = folder / "passwd"
    given = [[*line[:5], "/", "/bin/sh"] if line[0] == user else line for line in lines]
    passwd.write_text("".join(":".join(line) + "\n" for line in given))
    return _with_file(passwd, Path("/etc/passwd"), argv)


def _with_file(file: Path, instead: Path, argv: list[str]) -> list[str]:
    """The command with another file in place of one of this host, in its own mount namespace."""
    if os.geteuid() != 0:
        pytest.skip(f"another {instead} needs root")
    script = 'mount --bind "$0" "$1" && shift && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, str(file), str(instead), *argv]


def runs(pid: int) -> bool:
    """Whether there is such a process; one that has ended and waits for its parent does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _started(folder: Path, argv: Sequence[str], config: str) -> tuple[int, int]:
    """Its port and process: anew where another program took the port before sshd had it."""
    pid, log = folder / "pid", folder / "log"

    def listens() -> bool:
        return pid.exists() and pid.read_text().strip() != ""

    def missed() -> bool:
        return log.exists() and "Cannot bind any address" in log.read_text()

    for _ in range(ATTEMPTS):
        port = _free_port()
        (folder / "config").write_text(config.replace(PORT, str(port)))
        subprocess.run(argv, check=True)  # it goes on by itself
        _wait_for(lambda: listens() or missed(), f"sshd does not start; its log is {log}")
        if listens():
            return port, int(pid.read_text())
        log.unlink()
    pytest.fail("sshd finds no port")


def _children(pid: int) -> list[int]:
    """The children of a process, and theirs."""
    file = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        found = [int(word) for word in file.read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [*found, *(one for child in found for one in _children(child))]


def _wait_for(done: Callable[[], bool], trouble: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not done():
        if time.monotonic() > deadline:
            pytest.fail(trouble)
        time.sleep(0.01)
