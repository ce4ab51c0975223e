"""fallocate(2) with its modes, which Python's os module leaves out."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
from typing import Any

# linux/falloc.h
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 0x01, 0x02, 0x10

CANNOT = (errno.EOPNOTSUPP, errno.ENOSYS, errno.ENODEV, errno.EINVAL)


def fallocate(fd: int, mode: int, offset: int, length: int) -> bool:
    """False when the filesystem or the device cannot do it; other errors are raised."""
    while _libc()(fd, mode, offset, length) != 0:
        number = ctypes.get_errno()
        if number == errno.EINTR:
            continue
        if number in CANNOT:
            return False
        raise OSError(number, os.strerror(number))
    return True


@functools.cache
def _libc() -> Any:
    function = ctypes.CDLL(None, use_errno=True).fallocate
    function.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong]
    return function
