"""Reading small files of a mounted guest, which may be anything but what they should be."""

from __future__ import annotations

from typing import Any

from v2v.types import KiB, MiB

SMALL = 64 * KiB
CHUNK = 2 * MiB  # what one call of the appliance's protocol carries

LOOP = "Too many levels of symbolic links"  # ELOOP, as the appliance's libc has it


def read_capped(g: Any, path: str, limit: int = SMALL) -> bytes | None:
    """The first `limit` bytes of a regular file; None if there is none.

    `pread` answers in a millisecond under emulation, where `read_file` takes a hundred.
    """
    if not is_file(g, path):
        return None
    content = bytearray()
    while len(content) < limit:
        chunk = g.pread(path, min(CHUNK, limit - len(content)), len(content))
        if not chunk:
            break
        content += chunk
    return bytes(content)


def is_file(g: Any, path: str) -> bool:
    """Whether there is a regular file; a link that leads to itself is none."""
    try:
        return bool(g.is_file(path, followsymlinks=True))
    except RuntimeError as exc:
        if LOOP in str(exc):
            return False
        raise


def clean(text: str, limit: int = 200) -> str:
    """A string of the guest, fit to be shown: one line, printable, of a bounded length."""
    printable = "".join(c if c.isprintable() else "?" for c in text.strip())
    return printable if len(printable) <= limit else printable[: limit - 1] + "…"


def decode(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")
