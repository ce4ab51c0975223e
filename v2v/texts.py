"""Values as people read them, and strangers' text made safe to show."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Sequence

from v2v.types import KiB

MAX_NAME = 255  # characters
MAX_DESCRIPTION = 4 * KiB  # characters


def clean(text: str) -> str:
    """One line without control characters: a guest's name must not drive the user's terminal."""
    return "".join(
        c if c.isprintable() else " " if c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def clean_lines(text: str) -> str:
    """Lines without control characters and marks that turn the reading order; tabs stay."""
    return "".join(
        c if c in "\n\t" or not _unsafe(c) else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def some(words: Sequence[str], most: int = 10) -> str:
    """The first few of words that are fit to show, and how many more there are."""
    more = len(words) - most
    return ", ".join(words[:most]) + (f" and {more} more" if more > 0 else "")


def clean_name(text: str) -> str:
    """A stranger's name of something, on one line and not longer than names are; "" if blank."""
    return clean(text[:MAX_NAME]).strip()


def clean_description(text: str) -> str | None:
    """A stranger's words about a VM, and no book; None if blank."""
    return clean_lines(text[:MAX_DESCRIPTION]).strip() or None


def _unsafe(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def size_text(size: float) -> str:
    """Bytes for people: 512 B, 1.5 MiB, 20 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < KiB:
            return f"{size:.0f} {unit}" if size >= 100 or unit == "B" else f"{size:.3g} {unit}"
        size /= KiB
    return f"{size:.3g} TiB"


def time_text(seconds: float) -> str:
    """Seconds for people: 3.2 s, 2 min 05 s, 1 h 10 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def clock_text(at: float) -> str:
    """A Unix time as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
