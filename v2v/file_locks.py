"""Locks for writing that belong to an open file: Linux's "open file description locks", F_OFD_SETLK
in fcntl(2). Unlike those of flock(2) they can be asked about without being taken.
"""

from __future__ import annotations

import fcntl
import os
import struct

FLOCK = "hhqqi4x"  # struct flock of 64-bit Linux


def lock(fd: int) -> bool:
    """Lock a whole file until `fd` is closed; False: another one has locked some of it."""
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _words(0, 0))
    except (BlockingIOError, PermissionError):
        return False
    return True


def is_locked(fd: int, start: int = 0, length: int = 0) -> bool:
    """Whether another one has locked any of these bytes; of all that follow, without `length`.

    OSError where the filesystem has no locks.
    """
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _words(start, length))
    return bool(struct.unpack(FLOCK, answer)[0] != fcntl.F_UNLCK)


def _words(start: int, length: int) -> bytes:
    return struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
