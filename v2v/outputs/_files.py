"""Files of a guest in a folder: what they are called, and how they get their final names.

Everything is written under a working name that holds the job's id, in the folder where it will
stay, and renamed when all of it is complete.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from v2v.disk_files import (
    MODE,
    check_free,
    check_not_source,
    create_blank,
    is_inode,
    publish,
    sync_file,
    working_path,
)
from v2v.errors import TargetError

__all__ = [
    "MODE",
    "check_free",
    "check_not_source",
    "check_writable",
    "create_blank",
    "disk_suffix",
    "is_inode",
    "leftovers",
    "publish",
    "safe_name",
    "sync_file",
    "working_path",
    "write_file",
]

NAME_BYTES = 160  # leaves room for "-sdaa", a job id and ".part" in a file name of 255 bytes


def safe_name(name: str) -> str:
    """A VM's name as the stem of file names: no path, not hidden, no option, nothing invisible."""
    printable = "".join("_" if c == "/" or not c.isprintable() else c for c in name)
    shown = printable.lstrip(".-")
    whole = "_" * (len(printable) - len(shown)) + shown
    return whole.encode()[:NAME_BYTES].decode(errors="ignore") or "vm"


def disk_suffix(index: int) -> str:
    """sda, sdb, ... sdz, sdaa: Linux's count of disks."""
    letters, number = "", index + 1
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("a") + rest) + letters
    return f"sd{letters}"


def check_writable(folder: Path, *, flag: str) -> None:
    """TargetError unless files can be made there. Only trying it tells that to root."""
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as exc:
        raise TargetError(
            f"{flag} {folder}: cannot write there: {exc.strerror}",
            id="target-unwritable",
            hint=f"choose another folder with {flag}",
        ) from exc


def leftovers(folder: Path, job_id: str) -> list[Path]:
    """What a job has in the folder under working names."""
    if not folder.is_dir():
        return []
    end = f".{job_id}.part"
    return sorted(p for p in folder.iterdir() if p.name.startswith(".") and p.name.endswith(end))


def write_file(path: Path, content: bytes, mode: int) -> None:
    """Write a whole small file, replacing one of an earlier try."""
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
