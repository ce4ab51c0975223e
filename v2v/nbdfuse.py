"""nbdfuse: an NBD export as a raw file, by FUSE. The file is mounted over an empty one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from v2v import process
from v2v.endpoint import Endpoint
from v2v.errors import HostError
from v2v.process import ToolError
from v2v.run import Run

UMOUNT_SECONDS = 30.0
OCTAL = re.compile(rb"\\([0-7]{3})")


@contextmanager
def mount(endpoint: Endpoint, file: Path, *, run: Run, name: str) -> Iterator[None]:
    """Show `endpoint` in place of the regular file `file` until the block ends.

    It can be written if the endpoint can. Nobody but the user who mounts it, not even root, may
    look into it. When v2v dies, nbdfuse gets SIGTERM, upon which it unmounts. Its output is in
    log/NAME.log.
    """
    pid_file = run.tmp / f"{name}.pid"
    log_file = run.folder / "log" / f"{name}.log"
    argv = ["nbdfuse", "--pidfile", str(pid_file)]
    if endpoint.read_only:
        argv.append("--readonly")
    argv += [str(file), endpoint.uri]
    try:
        with process.server(argv, log_file=log_file, death_signal="TERM") as server:
            try:
                process.wait_until_ready(pid_file, server, log_file, cancel=run.cancel)
            except ToolError as exc:
                raise _not_mounted(file, exc) from exc
            yield
    finally:
        if is_mounted(file):  # it did not end as it should
            detach(file)


def mounted_below(folder: Path) -> list[Path]:
    """What is mounted on something in the folder, living or not."""
    return [path for path in _mount_points() if folder in path.parents]


def is_mounted(path: Path) -> bool:
    return path in _mount_points()


def is_dead(path: Path) -> bool:
    """Whether the program behind a mount point is gone, so that nothing there can be read."""
    try:
        path.lstat()
    except OSError:
        return True
    return False


def detach(path: Path) -> None:
    """Unmount at once, whoever still has a file open there."""
    process.run_tool(["fusermount3", "-u", "-z", str(path)], timeout=UMOUNT_SECONDS)


def _mount_points() -> list[Path]:
    """The kernel writes spaces, line feeds and backslashes in octal."""
    lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    return [Path(os.fsdecode(OCTAL.sub(_byte, line.split(b" ")[4]))) for line in lines]


def _byte(octal: re.Match[bytes]) -> bytes:
    return bytes([int(octal[1], 8)])


def _not_mounted(file: Path, exc: ToolError) -> HostError:
    return HostError(
        f"{file} cannot be mounted: {exc.message}",
        id="open-mount",
        hint="FUSE needs /dev/fuse, which a container must be given, and for users fusermount3",
    )
