"""Files of a guest in a folder: what they are called, and how they get their final names.

Everything is written under a working name that holds the job's id, in the folder where it will
stay, and renamed when all of it is complete.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from v2v.errors import TargetError
from v2v.journal import sync_folder
from v2v.types import Source

NAME_BYTES = 160  # leaves room for "-sdaa", a job id and ".part" in a file name of 255 bytes
MODE = 0o600  # disks hold secrets


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


def working_path(final: Path, job_id: str) -> Path:
    return final.with_name(f".{final.name}.{job_id}.part")


def leftovers(folder: Path, job_id: str) -> list[Path]:
    """What a job has in the folder under working names."""
    if not folder.is_dir():
        return []
    end = f".{job_id}.part"
    return sorted(p for p in folder.iterdir() if p.name.startswith(".") and p.name.endswith(end))


def create_blank(path: Path, size: int, *, preallocated: bool) -> None:
    """Make a raw file of `size` bytes that reads as zeroes. Nothing may be there."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
        try:
            os.truncate(fd, size)
            if preallocated and size:
                os.posix_fallocate(fd, 0, size)
        finally:
            os.close(fd)
    except OSError as exc:
        raise TargetError(
            f"cannot create {path} of {size} bytes: {exc.strerror}",
            id="target-create",
            hint="see to the folder, or choose another with -os",
        ) from exc


def write_file(path: Path, content: bytes, mode: int) -> None:
    """Write a whole small file, replacing one of an earlier try."""
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(content)


def sync_file(path: Path) -> int:
    """Make the content durable; give the inode number, which a rename keeps."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(fd)
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)


def check_free(final: Path, *, force: bool) -> None:
    """Refuse a name that is taken; with `force` only one that is no regular file."""
    if not os.path.lexists(final):
        return
    if not force:
        raise TargetError(
            f"{final} exists already",
            id="target-exists",
            hint="give the guest another name with -on, or replace what is there with --force",
        )
    if final.is_symlink() or not final.is_file():
        raise TargetError(
            f"{final} is not a regular file, and is not replaced",
            id="target-not-a-file",
            hint="remove it, or give the guest another name with -on",
        )


def check_not_source(final: Path, source: Source) -> None:
    """Refuse a name that would replace a file of the source, which --force does not mean."""
    for file in (name for disk in source.disks for name in disk.files):
        with suppress(OSError):
            if final.samefile(file):
                raise TargetError(
                    f"{final} is a file of the source, which is never replaced",
                    id="target-is-source",
                    hint="give the guest another name with -on, or choose another folder with -os",
                )


def is_inode(path: Path, inode: int | None) -> bool:
    try:
        return path.lstat().st_ino == inode
    except FileNotFoundError:
        return False


def publish(parts: Sequence[tuple[Path, Path]], inodes: Mapping[str, int], *, force: bool) -> None:
    """Rename (working, final) pairs, in order. Safe to repeat after a crash at any point.

    `inodes` tells which file belongs under each final name, so that what an earlier try renamed is
    known from what a stranger put there.
    """
    for _, final in parts:
        if not is_inode(final, inodes[str(final)]):
            check_free(final, force=force)
    for working, final in parts:
        _publish_one(working, final, inodes[str(final)], force=force)
    for folder in {final.parent for _, final in parts}:
        sync_folder(folder)


def _publish_one(working: Path, final: Path, inode: int, *, force: bool) -> None:
    if is_inode(final, inode):
        with suppress(FileNotFoundError):
            working.unlink()
        return
    if not is_inode(working, inode):
        raise TargetError(
            f"{working} is gone, or is not the file that this job wrote",
            id="target-lost",
            hint="nothing was overwritten; start the migration again",
        )
    check_free(final, force=force)
    if force:
        working.replace(final)
        return
    _rename_new(working, final)


def _rename_new(working: Path, final: Path) -> None:
    """Rename without replacing: a hard link fails when the name is taken, a rename does not."""
    try:
        os.link(working, final, follow_symlinks=False)
    except OSError:  # taken just now, or a filesystem without hard links
        check_free(final, force=False)
        working.rename(final)
        return
    working.unlink()
