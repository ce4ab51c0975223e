"""Disk files that are written under a working name and renamed when they are complete.

The working name holds the job's id and lies in the folder where the file will stay, so that the
rename is atomic, and so that what a job left is told from what is a stranger's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from v2v.errors import TargetError
from v2v.image.in_use import file_user
from v2v.journal import sync_folder
from v2v.types import Source

MODE = 0o600  # disks hold secrets
OTHER_GUEST_NAME = "give the guest another name with -on"


def working_path(final: Path, job_id: str) -> Path:
    return final.with_name(f".{final.name}.{job_id}.part")


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
            hint="see to the folder, or choose another one",
        ) from exc


def sync_file(path: Path) -> int:
    """Make the content durable; give the inode number, which a rename keeps."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(fd)
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)


def check_free(final: Path, *, force: bool, rename: str = OTHER_GUEST_NAME) -> None:
    """Refuse a name that is taken; with `force` only one that is no regular file, or in use.

    `rename` tells in the hint how to choose another name.
    """
    if not os.path.lexists(final):
        return
    if final.is_symlink() or not final.is_file():
        if force:
            raise TargetError(
                f"{final} is not a regular file, and is not replaced",
                id="target-not-a-file",
                hint=f"remove it, or {rename}",
            )
    elif force:
        if user := file_user(final):
            raise TargetError(
                f"{final} is in use: {user}",
                id="target-in-use",
                hint=f"not even --force replaces that; end what uses it, or {rename}",
            )
        return
    raise TargetError(
        f"{final} exists already",
        id="target-exists",
        hint=f"{rename}, or replace what is there with --force",
    )


def check_not_source(
    final: Path,
    source: Source,
    *,
    rename: str = OTHER_GUEST_NAME + ", or choose another folder with -os",
) -> None:
    """Refuse a name that would replace a file of the source, which --force does not mean."""
    for file in (name for disk in source.disks for name in disk.files):
        with suppress(OSError):
            if final.samefile(file):
                raise TargetError(
                    f"{final} is a file of the source, which is never replaced",
                    id="target-is-source",
                    hint=rename,
                )


def is_inode(path: Path, inode: int | None) -> bool:
    try:
        return path.lstat().st_ino == inode
    except FileNotFoundError:
        return False


def publish(
    parts: Sequence[tuple[Path, Path]],
    inodes: Mapping[str, int],
    *,
    force: bool,
    rename: str = OTHER_GUEST_NAME,
) -> None:
    """Rename (working, final) pairs, in order. Safe to repeat after a crash at any point.

    `inodes` tells which file belongs under each final name, so that what an earlier try renamed is
    known from what a stranger put there.
    """
    for _, final in parts:
        if not is_inode(final, inodes[str(final)]):
            check_free(final, force=force, rename=rename)
    for working, final in parts:
        _publish_one(working, final, inodes[str(final)], force=force, rename=rename)
    for folder in {final.parent for _, final in parts}:
        sync_folder(folder)


def _publish_one(working: Path, final: Path, inode: int, *, force: bool, rename: str) -> None:
    if is_inode(final, inode):
        with suppress(FileNotFoundError):
            working.unlink()
        return
    if not is_inode(working, inode):
        raise TargetError(
            f"{working} is gone, or is not the file that this job wrote",
            id="target-lost",
            hint="nothing was overwritten; start again",
        )
    check_free(final, force=force, rename=rename)
    if force:
        working.replace(final)
        return
    _rename_new(working, final, rename)


def _rename_new(working: Path, final: Path, rename: str) -> None:
    """Rename without replacing: a hard link fails when the name is taken, a rename does not."""
    try:
        os.link(working, final, follow_symlinks=False)
    except OSError:  # taken just now, or a filesystem without hard links
        check_free(final, force=False, rename=rename)
        working.rename(final)
        return
    working.unlink()
