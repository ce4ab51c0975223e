"""A real iSCSI target on this host, for tests: in user space, with a control port of its own."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

TARGET = "iqn.2024-01.example.v2v:disks"
START_SECONDS = 60.0
ATTEMPTS = 5  # to find ports that nobody has
CONTROLS = Path("/run/tgtd")  # of its control socket; it knows no other place
RESERVED = ".reserved"
NO_PORT = "unable to bind"  # it goes on without


@contextmanager
def tgtd(
    folder: Path, disks: Sequence[Path], *, user: str = "", password: str = ""
) -> Iterator[str]:
    """Serve files as the LUNs 1, 2, ... until the block ends; gives the address without the LUN.

    Skips where there is no tgtd, or not the right to run it.
    """
    program = shutil.which("tgtd", path="/usr/sbin:/usr/bin")
    if program is None or os.geteuid() != 0:
        pytest.skip("no iSCSI target: tgtd is not installed (make setup installs it), or no root")
    folder.mkdir(exist_ok=True)
    CONTROLS.mkdir(exist_ok=True)
    with _running(program, folder / "log") as (control, port):
        _configure(control, disks, user, password)
        yield f"iscsi://{f'{user}@' if user else ''}127.0.0.1:{port}/{TARGET}"


@contextmanager
def _running(program: str, log: Path) -> Iterator[tuple[str, int]]:
    """Its control port, and that of the target: others where another program has one of them."""
    for _ in range(ATTEMPTS):
        control, port = _free_control(), _free_port()
        argv = [program, "-f", "-C", control, "--iscsi", f"portal=127.0.0.1:{port}"]
        with log.open("wb") as out:
            server = subprocess.Popen(argv, stdout=out, stderr=out)
        try:
            _wait_until_ready(server, control, log)
            if server.poll() is None and NO_PORT not in log.read_text():
                yield control, port
                return
        finally:
            server.kill()
            server.wait()
            for name in ("", ".lock", RESERVED):  # this one last
                (CONTROLS / f"socket.{control}{name}").unlink(missing_ok=True)
    pytest.fail(f"tgtd does not start: {log.read_text()}")


def _configure(control: str, disks: Sequence[Path], user: str, password: str) -> None:
    _tgtadm(control, "--op", "new", "--mode", "target", "--tid", "1", "-T", TARGET)
    for number, disk in enumerate(disks, start=1):
        lun = ["--mode", "logicalunit", "--tid", "1", "--lun", str(number)]
        _tgtadm(control, "--op", "new", *lun, "-b", str(disk))
    if user:
        account = ["--mode", "account", "--user", user]
        _tgtadm(control, "--op", "new", *account, "--password", password)
        _tgtadm(control, "--op", "bind", *account, "--tid", "1")
    _tgtadm(control, "--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL")


def _tgtadm(control: str, *words: str, check: bool = True) -> bool:
    argv = ["tgtadm", "-C", control, "--lld", "iscsi", *words]
    return subprocess.run(argv, capture_output=True, check=check).returncode == 0


def _wait_until_ready(server: subprocess.Popen[bytes], control: str, log: Path) -> None:
    """Or until it has ended."""
    deadline = time.monotonic() + START_SECONDS
    while not _tgtadm(control, "--op", "show", "--mode", "target", check=False):
        if server.poll() is not None:
            return
        if time.monotonic() > deadline:
            pytest.fail(f"tgtd does not start: {log.read_text()}")
        time.sleep(0.01)


def _free_control() -> str:
    """Nobody's, and from now on that of who asked: tgtadm would speak to whoever has it."""
    while True:
        control = str(random.SystemRandom().randrange(1000, 30000))
        with suppress(FileExistsError):
            (CONTROLS / f"socket.{control}{RESERVED}").touch(exist_ok=False)
            if not (CONTROLS / f"socket.{control}").exists():
                return control


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
