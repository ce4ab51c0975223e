"""Finding what a job left running."""

from __future__ import annotations

import time
from pathlib import Path


def mentioning(*words: str) -> list[str]:
    """The command lines of all processes that name one of the words, such as a job's folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if any(word in line for word in words):
            found.append(f"{path.parent.name}: {line}")
    return found


def gone(*words: str, seconds: float = 120.0) -> bool:
    """Wait until no process names any of the words; libguestfs needs a moment to notice."""
    deadline = time.monotonic() + seconds
    while mentioning(*words):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
