"""The spellings that virt-v2v's users type, made into those that argparse knows.

virt-v2v parses with getopt_long_only: `-oo x`, `--oo x` and `-oo=x` are the same, a long option may
have one dash and be cut to any prefix that is unambiguous, short options cluster (`-vx`) and take
their value glued (`-m2048`), and options may follow the guests.
"""

from __future__ import annotations

import difflib
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from v2v.errors import UsageError


class Takes(Enum):
    """Whether an option takes a value; one that MAY takes it only after `=`."""

    NOTHING = 0
    VALUE = 1
    MAY = 2


@dataclass(frozen=True, slots=True)
class Option:
    spelling: str  # as argparse knows it: -oo, --root
    takes: Takes
    dest: str  # spellings with the same dest are the same option

    @property
    def name(self) -> str:
        return self.spelling.lstrip("-")


def normalise(
    words: Iterable[str], options: Iterable[Option], unsupported: Mapping[str, str]
) -> list[str]:
    """Give `OPTION` and `OPTION=VALUE` words first, then `--` and the positional words.

    `unsupported` maps names of options that are recognised but refused to what to tell the user.
    """
    table = {option.name: option for option in options}
    given: list[str] = []
    positional: list[str] = []
    rest = deque(words)
    while rest:
        word = rest.popleft()
        if word == "--":
            positional.extend(rest)
            break
        if not word.startswith("-") or word == "-":
            positional.append(word)
        else:
            given.extend(_normalise_option(word, rest, table, unsupported))
    return [*given, "--", *positional] if positional else given


def _normalise_option(
    word: str, rest: deque[str], table: dict[str, Option], unsupported: Mapping[str, str]
) -> list[str]:
    long_only = word.startswith("--")
    name, equals, value = word.lstrip("-").partition("=")
    if name in unsupported and name not in table:
        raise UsageError(
            f"{word.partition('=')[0]} is not supported yet",
            id="option-unsupported",
            hint=unsupported[name],
        )
    option = _lookup(name, word, table)
    if option:
        return [_with_value(option, value if equals else None, rest)]
    if not long_only and name[:1] in table:
        return _cluster(word, rest, table)
    raise _unknown(word, table)


def _lookup(name: str, word: str, table: dict[str, Option]) -> Option | None:
    """The option of that name, or the only one whose name starts with it."""
    if name in table or not name:
        return table.get(name)
    candidates = [o for n, o in table.items() if len(n) > 1 and n.startswith(name)]
    if len({o.dest for o in candidates}) > 1:
        spellings = ", ".join(o.spelling for o in candidates)
        raise UsageError(
            f"{word}: ambiguous option", id="option-ambiguous", hint=f"it may be {spellings}"
        )
    return candidates[0] if candidates else None


def _with_value(option: Option, value: str | None, rest: deque[str]) -> str:
    if option.takes is Takes.NOTHING and value is not None:
        raise UsageError(f"{option.spelling} takes no value", id="option-value")
    if option.takes is Takes.VALUE and value is None:
        if not rest:
            raise UsageError(f"{option.spelling} needs a value", id="option-value")
        value = rest.popleft()
    if option.takes is Takes.MAY and value is None and rest and rest[0].isdecimal():
        raise UsageError(
            f"{option.spelling} {rest[0]}: the value comes after =",
            id="option-value",
            hint=f"{option.spelling}={rest[0]}",
        )
    return option.spelling if value is None else f"{option.spelling}={value}"


def _cluster(word: str, rest: deque[str], table: dict[str, Option]) -> list[str]:
    """-vx is -v -x; -m2048 is -m 2048."""
    found = []
    letters = word[1:]
    while letters:
        option, letters = table.get(letters[0]), letters[1:]
        if option is None:
            raise _unknown(word, table)
        glued = letters if letters and option.takes is Takes.VALUE else None
        found.append(_with_value(option, glued, rest))
        if glued:
            break
    return found


def _unknown(word: str, table: dict[str, Option]) -> UsageError:
    """The closest name is sought without dashes, which would make all options alike."""
    typed = word.partition("=")[0]
    close = difflib.get_close_matches(typed.lstrip("-"), [n for n in table if len(n) > 1], n=1)
    hint = f"did you mean {table[close[0]].spelling}?" if close else "see --help"
    return UsageError(f"{typed}: no such option", id="option-unknown", hint=hint)
