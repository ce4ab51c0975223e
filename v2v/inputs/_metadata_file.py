"""Reading the file that describes a VM: small, and whatever the user named."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from v2v.errors import SourceError
from v2v.image.reader import unreadable


def read_metadata_file(path: Path, limit: int, *, hint: str) -> bytes:
    """The content of a regular file; of a larger one than `limit` bytes, one byte more than that.

    `hint` tells what to give instead of what is no file.
    """
    try:
        str(path).encode()  # what cannot be written to the journal is no good later
        with open(path, "rb", opener=_without_waiting) as file:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return file.read(limit + 1)
    except FileNotFoundError as exc:
        raise SourceError(
            f"{path}: no such file", id="source-missing", hint="is the path right?"
        ) from exc
    except IsADirectoryError:
        pass
    except OSError as exc:
        raise unreadable(path, exc) from exc
    except UnicodeEncodeError as exc:
        shown = str(path).encode(errors="replace").decode()
        raise SourceError(
            f"{shown}: the name is not UTF-8", id="source-name", hint="rename it, or make a link"
        ) from exc
    raise SourceError(f"{path} is not a file", id="source-not-a-file", hint=hint)


def _without_waiting(path: str, flags: int) -> int:
    """Opening a FIFO would wait for somebody to write to it."""
    return os.open(path, flags | os.O_NONBLOCK)
