"""An NFS export that is mounted while somebody uses it.

Mounts are below MOUNTS, never in a job's folder: what removes that must not walk into them. Each
one is held by a lock that ends with its process, so that the next job knows what a killed one left.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from v2v import process
from v2v.errors import TargetError, UsageError
from v2v.run import Run
from v2v.texts import clean

MOUNTS = Path("/run/v2v/mounts")
REMOTE = re.compile(r"(\[[0-9a-fA-F:.%]+\]|[A-Za-z0-9][A-Za-z0-9._-]*):/[^\0]*")

# A server that is gone ends in an error, as oVirt's own mounts do, rather than in a wait for ever.
OPTIONS = "soft,timeo=100,retrans=3,retry=0,nosuid,nodev,noexec"
SECONDS = 60.0  # for mounting, and for unmounting
TAKE_SECONDS = 20.0  # until others have let a mount go that they took for a killed job's

log = logging.getLogger(__name__)


class Storage:
    """The folder that -os names, HOST:/PATH or /PATH; it may be used by several at once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._users = 0
        self._mount = ExitStack()
        self._path = Path(name)

    @property
    def is_remote(self) -> bool:
        return not self.name.startswith("/")

    def check(self) -> None:
        """Refuse what is neither a path nor on a server."""
        if not self.name.startswith("/") and not REMOTE.fullmatch(self.name):
            raise UsageError(
                f"-os {clean(self.name)}: neither an absolute path nor HOST:/PATH",
                id="option-value",
                hint="such as -os nfs.example.com:/export, or -os /mnt/export",
            )
        if self.is_remote and os.geteuid() != 0:
            raise UsageError(
                f"-os {clean(self.name)}: only root can mount it",
                id="ovirt-mount-root",
                hint="mount it, and give the folder: -os /mnt/export",
            )

    def show(self, path: Path) -> str:
        """A path in it, while it is open, as it can be found later."""
        if not self.is_remote:
            return str(path)
        return f"{self.name.rstrip('/')}/{path.relative_to(self._path)}"

    @contextmanager
    def open(self, run: Run) -> Iterator[Path]:
        if not self.is_remote:
            yield self._path
            return
        with self._lock:
            if self._users == 0:
                self._path = self._mount.enter_context(mounted(self.name, run))
            self._users += 1
        try:
            yield self._path
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    self._mount.close()


@contextmanager
def mounted(source: str, run: Run) -> Iterator[Path]:
    """Where `source` is mounted: the same path whenever this job asks."""
    MOUNTS.mkdir(mode=0o700, parents=True, exist_ok=True)
    clean_up()
    place = MOUNTS / run.job_id
    lock = _take_own(place, run)
    if lock is None:
        raise TargetError(
            f"{place} is in use by another process",
            id="target-in-use",
            hint="wait for it, or stop that process first",
        )
    try:
        place.mkdir(exist_ok=True)
        _mount(source, place, run)
        yield place
    finally:
        _let_go(place, lock)


def clean_up() -> None:
    """Unmount what killed jobs left."""
    for path in MOUNTS.glob("*.lock"):
        place = path.with_suffix("")
        lock = _take(place)
        if lock is not None:
            log.debug("left by a killed job: %s", place)
            _let_go(place, lock)


def is_mounted(place: Path) -> bool:
    """As the kernel lists it: who looks at the folder waits for a server that may be gone."""
    lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    return str(place) in (line.split()[4] for line in lines)


def mount_argv(source: str, place: Path) -> list[str]:
    return ["mount", "-t", "nfs", "-o", OPTIONS, "--", source, str(place)]


def _mount(source: str, place: Path, run: Run) -> None:
    try:
        done = process.run_tool(
            mount_argv(source, place), timeout=SECONDS, cancel=run.cancel, check=False
        )
    except process.ToolError as exc:
        raise _no_mount(source, exc.message) from exc
    if done.returncode:
        # The first line is the reason; what follows is advice.
        reason = done.stderr.strip().partition("\n")[0] or f"exit code {done.returncode}"
        raise _no_mount(source, clean(reason))


def _no_mount(source: str, reason: str) -> TargetError:
    return TargetError(
        f"-os {clean(source)}: cannot be mounted: {reason}",
        id="target-unreachable",
        hint="see to the server and its exports; mounting NFS takes the package nfs-common "
        "(Debian) or nfs-utils (Fedora)",
    )


def _take_own(place: Path, run: Run) -> int | None:
    """The lock of this job's mount. Who cleans up may hold it for a moment, as long as we do not:
    it looks like a killed job's."""
    deadline = time.monotonic() + TAKE_SECONDS
    while (lock := _take(place)) is None and time.monotonic() < deadline:
        run.cancel.wait(0.05)
    return lock


def _take(place: Path) -> int | None:
    """The lock of a mount, unless a process holds it."""
    fd = os.open(f"{place}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if Path(f"{place}.lock").stat().st_ino == os.fstat(fd).st_ino:
            return fd
    except (BlockingIOError, FileNotFoundError):  # held, or let go just now
        pass
    os.close(fd)
    return None


def _let_go(place: Path, lock: int) -> None:
    """Unmount it, whatever happened; a folder that is still mounted is never removed."""
    try:
        if is_mounted(place):
            _unmount(place)
        with suppress(FileNotFoundError):
            place.rmdir()
        Path(f"{place}.lock").unlink(missing_ok=True)
    except OSError as exc:
        log.warning("%s is left behind: %s", place, exc)
    finally:
        os.close(lock)


def _unmount(place: Path) -> None:
    """When it is busy, or its server is gone, it goes once nobody uses it any more."""
    for argv in (["umount", "--", str(place)], ["umount", "--lazy", "--", str(place)]):
        try:
            process.run_tool(argv, timeout=SECONDS)
            return
        except process.ToolError as exc:
            log.warning("%s: %s", place, exc)
