"""Options of a module: a dataclass, and its other faces.

A module declares a frozen dataclass whose fields are made with `option`. From it come the command
line (`-os DIR`, `-oo compressed`), the manifest's YAML keys (the field names) and the help text.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from v2v.errors import UsageError

T = TypeVar("T")

MISSING: Any = dataclasses.MISSING
PATHS = tuple[Path, ...]  # separated by colons on the command line
REPEATED = tuple[str, ...]  # of an option that may be given several times
SEPARATOR = "\0"  # between the words of such an option: no argument of a program holds it
FREE = tuple[tuple[str, str], ...]  # keys and words, see `free_options`
ANY = "*"  # the key of such options

# The id or the name of a secret is none.
_SECRET = re.compile(
    r"(pass(word|wd|phrase)|secret|cookie|token|credential)(?!.*-(id|name)$)", re.IGNORECASE
)


def option(
    flag: str,
    help: str,
    *,
    default: Any = MISSING,
    metavar: str | None = None,
    also: Sequence[str] = (),
) -> Any:
    """A field of an Options dataclass.

    `flag` is the command-line spelling: a flag of the whole command ("-os") or a key of -io or -oo
    ("-oo compressed"). Without a default the option is required. `also` are other spellings.
    """
    metadata = {"flag": flag, "help": help, "metavar": metavar, "also": tuple(also)}
    return dataclasses.field(default=default, metadata=metadata)


def free_options(flag: str, help: str, *, only_with: tuple[str, str]) -> Any:
    """A field for keys of -io that the module does not know: FREE.

    only_with: an option, and how its word begins, without which there are none: ("-it", "nbdkit:").
    """
    metadata = {"flag": f"{flag} {ANY}", "help": help, "metavar": "VALUE", "only_with": only_with}
    return dataclasses.field(default=(), metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoOptions:
    """For modules that take none."""


@dataclass(frozen=True, slots=True)
class OptionHelp:
    flag: str
    metavar: str
    help: str
    default: str | None  # None when required


def parse(cls: type[T], given: Mapping[str, str], *, module: str) -> T:
    """Make the Options of a module from flags and their words.

    given: {"-os": "/var/tmp", "-oo compressed": ""}; `module` names it in errors: "-o local".
    """
    known = {field.metadata["flag"]: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    given = _by_first_spelling(cls, given)
    _check_no_secret(given, {flag: hints[field.name] for flag, field in known.items()})
    values, free = _take_free(known, given)
    for flag in given:
        if flag not in known and flag not in free:
            alike = [one for one in known if one[:4] == flag[:4]]  # -io and -if are not alike
            raise UsageError(
                f"{module} does not take {flag}",
                id="option-unknown",
                hint=did_you_mean(flag, alike) or f"it takes: {', '.join(known) or 'no options'}",
            )
    for flag, field in known.items():
        if flag in given:
            values[field.name] = convert(given[flag], hints[field.name], flag)
        elif field.default is MISSING:
            raise UsageError(
                f"{module} needs {flag}",
                id="option-required",
                hint=f"{flag}: {field.metadata['help']}",
            )
    return cls(**values)


def _by_first_spelling(cls: type, given: Mapping[str, str]) -> dict[str, str]:
    """The same words under the first spelling of their flags; repeated ones are joined."""
    first = {
        other: field.metadata["flag"]
        for field in dataclasses.fields(cls)
        for other in field.metadata.get("also", ())
    }
    words: dict[str, str] = {}
    for flag, word in given.items():
        name = first.get(flag, flag)
        if name in words and name not in repeatable(cls):
            raise UsageError(
                f"{name} and {flag} are the same option", id="option-conflict", hint="give one"
            )
        words[name] = f"{words[name]}{SEPARATOR}{word}" if name in words else word
    return words


def _take_free(
    known: dict[str, dataclasses.Field[Any]], given: Mapping[str, str]
) -> tuple[dict[str, Any], set[str]]:
    """Values of the fields for free keys, which are taken out of `known`; and their flags."""
    values: dict[str, Any] = {}
    taken: set[str] = set()
    for flag in [flag for flag in known if flag.endswith(f" {ANY}")]:
        field = known.pop(flag)
        option, beginning = field.metadata["only_with"]
        allowed = given.get(option, "").startswith(beginning)
        start = flag.removesuffix(ANY)
        found = [one for one in given if allowed and one.startswith(start) and one not in known]
        values[field.name] = tuple((one.removeprefix(start), given[one]) for one in found)
        taken.update(found)
    return values, taken


def _check_no_secret(given: Mapping[str, str], kinds: Mapping[str, Any]) -> None:
    """Secrets are in files: words are journaled, and those for a plugin can be seen by all."""
    for flag, word in given.items():
        named = kinds.get(flag) in (Path, Path | None) or word.startswith("+")
        key = flag.partition(" ")[2]
        if word and not named and _SECRET.search(key):
            raise UsageError(
                f"{flag}=... holds a secret, which others could see",
                id="option-secret",
                hint="put it into a file, and give "
                + ("-op FILE" if flag not in kinds and "-op" in kinds else f"{flag}=+FILE"),
            )


def repeatable(cls: type) -> set[str]:
    """The options that may be given several times; their words are joined by SEPARATOR."""
    hints = typing.get_type_hints(cls)
    fields = dataclasses.fields(cls)
    return {
        flag
        for field in fields
        if hints[field.name] == REPEATED
        for flag in (field.metadata["flag"], *field.metadata.get("also", ()))
    }


def anchored(cls: type, given: Mapping[str, str]) -> dict[str, str]:
    """The same words with relative paths made absolute, so that they last longer than the cwd."""
    hints = typing.get_type_hints(cls)
    given = _by_first_spelling(cls, given)
    kinds = {field.metadata["flag"]: hints[field.name] for field in dataclasses.fields(cls)}
    _check_no_secret(given, kinds)
    free = any(flag.endswith(f" {ANY}") for flag in kinds)
    return {
        flag: _anchored(word, kinds.get(flag, FREE if free else None), flag)
        for flag, word in given.items()
    }


def _anchored(word: str, kind: Any, flag: str) -> str:
    if kind in (Path, Path | None):
        return str(convert(word, Path, flag))
    if kind == PATHS:
        return ":".join(str(path) for path in convert(word, PATHS, flag))
    if kind == FREE and re.match(r"\+[^/{]", word):  # a secret in a file, for nbdkit
        return f"+{convert(word[1:], Path, flag)}"
    return word


def convert(word: str, kind: Any, flag: str) -> Any:
    """The word of an option as the type of its field."""
    if isinstance(kind, types.UnionType):  # X | None
        kind = next(k for k in kind.__args__ if k is not types.NoneType)
    if kind is bool:
        if word.lower() in ("", "true", "yes", "on", "1"):
            return True
        if word.lower() in ("false", "no", "off", "0"):
            return False
        raise UsageError(f"{flag}: {word!r} is neither true nor false", id="option-value")
    if kind is Path:
        return Path(word).expanduser().absolute()
    if kind == PATHS:
        return tuple(convert(path, Path, flag) for path in word.split(":") if path)
    if kind == REPEATED:
        return tuple(word.split(SEPARATOR))
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        try:
            return kind(word)
        except ValueError:
            raise not_one_of(flag, word, [str(member) for member in kind]) from None
    try:
        return kind(word)
    except ValueError:
        raise UsageError(f"{flag}: {word!r} is not a number", id="option-value") from None


def describe(cls: type) -> list[OptionHelp]:
    """What `v2v modes` and the reference print of a module's options."""
    hints = typing.get_type_hints(cls)
    rows = []
    for field in dataclasses.fields(cls):
        required = field.default is MISSING
        metavar = field.metadata["metavar"] or _metavar(hints[field.name])
        default = None if required else str(field.default or "")
        flag = field.metadata["flag"].replace(f" {ANY}", " KEY")
        rows.append(OptionHelp(flag, metavar, field.metadata["help"], default))
    return rows


def _metavar(kind: Any) -> str:
    if isinstance(kind, types.UnionType):
        kind = next(k for k in kind.__args__ if k is not types.NoneType)
    if kind is bool:
        return ""
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return "|".join(kind)
    return {Path: "PATH", int: "N"}.get(kind, "TEXT")


def not_one_of(flag: str, word: str, choices: Sequence[str]) -> UsageError:
    return UsageError(
        f"{flag}: {word!r} is not one of {', '.join(choices)}",
        id="option-value",
        hint=did_you_mean(word, choices),
    )


def did_you_mean(word: str, choices: Iterable[str]) -> str | None:
    """A hint that names the closest choice, if one is close."""
    close = difflib.get_close_matches(word, list(choices), n=1)
    return f"did you mean {close[0]}?" if close else None
