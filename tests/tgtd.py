"""A real iSCSI target on this host, for tests: in user space, with a control port of its own."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

TARGET = "iqn.2024-01.example.v2v:disks"
START_SECONDS = 20.0


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
    Path("/run/tgtd").mkdir(exist_ok=True)  # of its control socket; it knows no other place
    control, port = str(random.randrange(1000, 30000)), _free_port()
    argv = [program, "-f", "-C", control, "--iscsi", f"portal=127.0.0.1:{port}"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        _wait_until_ready(server, control, folder / "log")
        _configure(control, disks, user, password)
        yield f"iscsi://{f'{user}@' if user else ''}127.0.0.1:{port}/{TARGET}"
    finally:
        server.kill()
        server.wait()
        for file in Path("/run/tgtd").glob(f"socket.{control}*"):
            file.unlink()


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
    deadline = time.monotonic() + START_SECONDS
    while not _tgtadm(control, "--op", "show", "--mode", "target", check=False):
        if server.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"tgtd does not start: {log.read_text()}")
        time.sleep(0.01)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
