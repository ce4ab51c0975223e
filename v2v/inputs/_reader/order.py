"""What v2v and the process that reads a disk for it tell each other: files in a folder of theirs.

order    what to read, written by v2v
ready    what is being read, once it is
told     what the user is to hear, a line each
failed   what could not be read, and still cannot; absent when there is nothing
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from v2v import errors
from v2v.errors import V2VError
from v2v.inputs._reader.recipe import Recipe

T = TypeVar("T")

ORDER, READY, TOLD, FAILED = "order", "ready", "told", "failed"


@dataclass(frozen=True, slots=True)
class Order:
    recipe: Recipe
    folder: Path
    stop: int  # a descriptor, which ends when everything is to be given up


@dataclass(frozen=True, slots=True)
class Ready:
    request_size: int  # bytes per read that the store prefers


@dataclass(frozen=True, slots=True)
class Failed:
    """A V2VError."""

    kind: str  # its class
    message: str
    id: str
    hint: str | None = None

    @classmethod
    def of(cls, exc: V2VError) -> Failed:
        return cls(type(exc).__name__, exc.message, exc.id, exc.hint)

    def error(self) -> V2VError:
        kind: type[V2VError] = getattr(errors, self.kind, errors.SourceError)
        return kind(self.message, id=self.id, hint=self.hint)


def write(file: Path, value: object) -> None:
    """Whole or not at all, as far as others see it."""
    working = file.with_suffix(".new")
    working.write_bytes(msgspec.json.encode(value, enc_hook=str))
    working.rename(file)


def read(file: Path, kind: type[T]) -> T | None:
    """None if it is not there."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind, dec_hook=_path)
    except FileNotFoundError:
        return None


def _path(kind: type, word: str) -> Path:
    assert kind is Path  # noqa: S101
    return Path(word)


def append(file: Path, text: str) -> None:
    """A line, in one write: several threads may append."""
    fd = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, msgspec.json.encode(text) + b"\n")
    finally:
        os.close(fd)


def lines(file: Path) -> list[str]:
    if not file.exists():
        return []
    return [msgspec.json.decode(line, type=str) for line in file.read_bytes().splitlines()]
