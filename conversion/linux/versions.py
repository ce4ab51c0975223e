"""Debian's order of versions, as deb-version(7) defines it."""

from __future__ import annotations

import re
from typing import Any


def version_key(version: str) -> tuple[Any, ...]:
    """A key that sorts package versions, and kernel releases, as dpkg does."""
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    upstream, dash, revision = rest.rpartition("-")
    if not dash:
        upstream, revision = rest, ""
    return (int(epoch) if epoch.isdecimal() else 0, _part(upstream), _part(revision))


def _part(text: str) -> tuple[Any, ...]:
    """Non-digits and digits by turns; a run of non-digits ends in 0, which only ~ sorts before."""
    key: list[Any] = []
    for words, digits in re.findall(r"(\D*)(\d*)", text):
        key.append((*map(_order, words), 0))
        key.append(int(digits or 0))
    return tuple(key)


def _order(char: str) -> int:
    if char == "~":
        return -1
    return ord(char) if char.isalpha() else ord(char) + 256
