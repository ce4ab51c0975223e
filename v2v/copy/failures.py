"""Errors of a copy: which disk, which range, why, and what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from v2v.copy.sinks import SinkLost
from v2v.errors import CopyError, V2VError

FULL = (errno.ENOSPC, errno.EDQUOT)


def failure(disk: int, verb: str, offset: int, length: int, error: OSError | V2VError) -> CopyError:
    """`verb` is read, write, zero or flush; disks are counted from 0."""
    number = error.errno if isinstance(error, OSError) else None
    cause = (error.strerror if isinstance(error, OSError) else None) or str(error)
    where = f"bytes {offset} to {offset + length - 1}"
    message = f"disk {disk + 1}: cannot {verb} {where}: {cause}"
    if verb != "read" and number in FULL:
        return CopyError(
            message, id="target-full", hint="make room on the target, then `v2v resume` the job"
        )
    if number == errno.ETIMEDOUT:
        return CopyError(
            message,
            id="copy-stalled",
            hint="see whether the server and the network are up, then go on with `v2v resume`; "
            "--stall-timeout allows more time",
        )
    return CopyError(
        message,
        id="copy-read" if verb == "read" else "copy-write",
        hint="the job can be continued with `v2v resume` when that is repaired",
    )


@contextmanager
def naming(disk: int, verb: str, offset: int, length: int) -> Iterator[None]:
    """Turn a system error into one that names the disk and the range; a lost target stays one."""
    try:
        yield
    except SinkLost:
        raise
    except OSError as exc:
        raise failure(disk, verb, offset, length, exc) from exc
