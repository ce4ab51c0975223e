"""The argument parser that every subcommand uses, and the types of its values."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from v2v.cli import argv
from v2v.errors import UsageError
from v2v.hardware import valid_mac
from v2v.job import NicMap, StorageMap
from v2v.options import not_one_of

MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that takes virt-v2v's spellings and raises UsageError."""

    unsupported: Mapping[str, str]

    def __init__(self, **kwargs: Any) -> None:
        self.unsupported = kwargs.pop("unsupported", {})
        kwargs.setdefault("formatter_class", HelpFormatter)
        super().__init__(allow_abbrev=False, **kwargs)

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        known, rest = self.parse_known_args(argv.normalise(words, self.options(), self.unsupported))
        if rest := [word for word in rest if word != "--"]:
            self.error(f"{rest[0]}: not understood")
        return known

    def options(self) -> list[argv.Option]:
        return [
            argv.Option(spelling, _takes(action), action.dest)
            for spelling, action in self._option_string_actions.items()
        ]

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            flag = action.option_strings[-1] if action.option_strings else str(action.metavar)
            raise not_one_of(flag, value, list(action.choices))

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, id="usage", hint=f"see `{self.prog} --help`")


def _takes(action: argparse.Action) -> argv.Takes:
    if action.nargs == 0:
        return argv.Takes.NOTHING
    return argv.Takes.MAY if action.nargs == "?" else argv.Takes.VALUE


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the layout of descriptions and examples; leaves a wide column for options."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """`-n, --network MAP` rather than `-n MAP, --network MAP`."""
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, action.dest.upper())
        if action.nargs == "?":
            return ", ".join(action.option_strings) + value.replace("[", "[=", 1)
        return f"{', '.join(action.option_strings)} {value}"


class Once(argparse.Action):
    """Store a value; giving the option twice is an error, as it is for virt-v2v."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if getattr(namespace, self.dest) != self.default:
            raise UsageError(f"{option_string} is given more than once", id="option-repeated")
        setattr(namespace, self.dest, values)


# Types of values: each takes the word and raises UsageError ---------------------------------------


def positive(flag: str) -> Any:
    """A whole number above zero."""

    def parse(word: str) -> int:
        if not word.isascii() or not word.isdigit() or int(word) == 0:
            raise UsageError(f"{flag}: {word!r} is not a number above zero", id="option-value")
        return int(word)

    return parse


def seconds(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise UsageError(
            f"--boot-check: {word!r} is not a number of seconds",
            id="option-value",
            hint="for example --boot-check=300",
        )
    return value


def network_map(kind: str) -> Any:
    """-n and -b: `IN:OUT`, or `OUT` for every NIC of that kind."""

    def parse(word: str) -> NicMap:
        source, colon, target = word.rpartition(":")
        if not target or (colon and not source):
            raise UsageError(
                f"--{kind}: {word!r} names no {kind}",
                id="option-value",
                hint=f"write --{kind} OUT, or --{kind} IN:OUT",
            )
        return NicMap(kind, source or None, kind, target)

    return parse


def storage_map(word: str) -> StorageMap:
    """--storage IN:OUT."""
    source, _, target = word.rpartition(":")
    if not source or not target:
        raise UsageError(
            f"--storage: {word!r} is not IN:OUT",
            id="option-value",
            hint="for example --storage datastore1:pool1, or --storage 2:pool2 for the second disk",
        )
    return StorageMap(source, target)


def mac_map(word: str) -> NicMap:
    """--mac MAC:network:OUT or MAC:bridge:OUT."""
    mac, rest = word[:17], word[17:]
    kind, _, target = rest.removeprefix(":").partition(":")
    if MAC.fullmatch(mac) and kind == "ip":
        raise UsageError(
            f"--mac {word}: a static IP address is for Windows guests only, not supported yet",
            id="option-unsupported",
            hint="a Linux guest keeps the addresses that it has",
        )
    if not MAC.fullmatch(mac) or kind not in ("network", "bridge") or not target:
        raise UsageError(
            f"--mac: {word!r} is not MAC:network:OUT or MAC:bridge:OUT",
            id="option-value",
            hint="for example --mac 52:54:00:12:34:56:bridge:br0",
        )
    if valid_mac(mac) is None:
        raise UsageError(
            f"--mac: no network card can have the address {mac}",
            id="option-value",
            hint="the second digit is even, as in 52:54:00:12:34:56",
        )
    return NicMap("mac", mac.lower(), kind, target)
