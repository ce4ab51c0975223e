"""The syntax of VMware's configuration files (.vmx, .vmsd): lines of `key = "value"`."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from v2v.errors import SourceError
from v2v.image.encodings import ENCODINGS
from v2v.run import Run
from v2v.types import MiB

MAX_BYTES = MiB  # of a file; the largest have some ten KiB
MAX_NUMBER = 20  # characters

_ENCODING = re.compile(rb'^[ \t]*\.encoding[ \t]*=[ \t]*"?([A-Za-z0-9_.-]{1,40})"?', re.I | re.M)
_LINE = re.compile(
    r"""\s* (?P<key> [^\s="\#]+ ) \s* = \s*
        (?: "(?P<quoted> [^"]* )" | (?P<plain> [^\s"\#]* ) )
        \s* (?: \#.* )?""",
    re.VERBOSE,
)
_ESCAPES = re.compile(r"(?:\|[0-9A-Fa-f]{2})+")


@dataclass(frozen=True, slots=True)
class Vmx:
    """The entries of a file. Keys are lower case, values as they are meant; neither is trusted."""

    name: str  # of the file, for messages
    entries: Mapping[str, str] = field(default_factory=dict)

    def text(self, key: str) -> str:
        """Empty when there is none."""
        return self.entries.get(key.lower(), "").strip()

    def flag(self, key: str) -> bool | None:
        """None when it is not there, or neither true nor false."""
        word = self.text(key).lower()
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(
            word
        )

    def number(self, key: str) -> int | None:
        return parse_number(self.text(key))

    def matching(self, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
        """The keys that the pattern matches as a whole."""
        return filter(None, map(pattern.fullmatch, self.entries))


def parse_number(text: str) -> int | None:
    short = len(text) <= MAX_NUMBER and text.isascii()
    return int(text) if short and text.removeprefix("-").isdigit() else None


def parse_vmx(data: bytes, name: str, run: Run) -> Vmx:
    """Read a file's content. SourceError `vmx-invalid` tells the line that is not understood."""
    if len(data) > MAX_BYTES:
        raise _invalid(name, f"it is larger than {MAX_BYTES // MiB} MiB")
    if b"\0" in data:
        before = data[: data.index(b"\0")].count(b"\n")
        raise _invalid(name, f"line {before + 1} has zero bytes: it is no text")
    encoding = _encoding(data, name, run)
    entries: dict[str, str] = {}
    text = data.removeprefix(codecs.BOM_UTF8).decode(encoding, "replace")
    for number, line in enumerate(re.split("\r\n|\n|\r", text), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, value = _entry(line, number, name, encoding)
        if entries.get(key, value) != value:
            _warn_twice(line, number, key, name, run)
        entries[key] = value
    return Vmx(name, entries)


def _entry(line: str, number: int, name: str, encoding: str) -> tuple[str, str]:
    match = _LINE.fullmatch(line)
    if match is None:
        raise _invalid(name, f'line {number} is not of the form key = "value": {line[:60]!r}')
    value = match["quoted"] if match["quoted"] is not None else match["plain"]
    return match["key"].lower(), _ESCAPES.sub(lambda m: _unescaped(m[0], encoding), value)


def _unescaped(text: str, encoding: str) -> str:
    """|22 is a quote, |0A a new line: bytes in the encoding of the file."""
    return bytes.fromhex(text.replace("|", "")).decode(encoding, "replace")


def _encoding(data: bytes, name: str, run: Run) -> str:
    """Python's name of the file's encoding; a file that does not say is UTF-8, or of Windows."""
    match = _ENCODING.search(data)
    if match is None:
        return "utf-8" if _is_utf8(data) else "cp1252"
    word = match[1].decode().lower()
    if word not in ENCODINGS:
        run.warn(
            f"{name}: the encoding {match[1].decode()} is not known; read as UTF-8",
            id="vmx-encoding",
            hint="names that are not ASCII may be wrong",
        )
    return ENCODINGS.get(word, "utf-8")


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _warn_twice(line: str, number: int, key: str, name: str, run: Run) -> None:
    run.warn(
        f"{name}: line {number} gives {key} again, with another value; the last one counts",
        id="vmx-repeated",
        hint="VMware does not start such a VM: which one is right?",
    )


def _invalid(name: str, what: str) -> SourceError:
    return SourceError(
        f"{name}: {what}",
        id="vmx-invalid",
        hint="give the .vmx file of the VM, as VMware wrote it",
    )
