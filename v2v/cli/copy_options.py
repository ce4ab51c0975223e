"""How disks are copied: options that convert and copy share, and the CopyOptions they become."""

from __future__ import annotations

import argparse
import dataclasses
import re
from typing import Any

from v2v.cli.parser import Parser, positive
from v2v.errors import UsageError
from v2v.job import CopyOptions, PageCache
from v2v.types import GiB, KiB, MiB

UNITS = {"": 1, "K": KiB, "M": MiB, "G": GiB}
SMALLEST_REQUEST = 64 * KiB  # a cluster of qcow2: smaller writes would be read, changed, written
LARGEST_REQUEST = 32 * MiB  # what every NBD server takes
MOST_CONNECTIONS = 64  # beyond that servers refuse
MOST_REQUESTS = 1024


def add(parser: Parser, *, several_disks: bool = False, writes: bool = True) -> None:
    """The group "copy". `several_disks`: with what matters to a whole VM only."""
    group = parser.add_argument_group("copy")
    if several_disks:
        _add_several(group)
    _add_source(group)
    if writes:
        _add_target(group)


def _add_several(group: Any) -> None:
    group.add_argument(
        "--parallel", type=positive("--parallel"), metavar="N", help="disks copied at a time"
    )
    group.add_argument(
        "--no-overlap",
        dest="overlap",
        action="store_false",
        help="begin to copy after the conversion, not while it runs",
    )


def _add_source(group: Any) -> None:
    group.add_argument(
        "--connections",
        type=at_most("--connections", MOST_CONNECTIONS),
        metavar="N",
        help="connections to the source, for each disk (default: chosen while it runs)",
    )
    group.add_argument(
        "--requests",
        type=at_most("--requests", MOST_REQUESTS),
        metavar="N",
        help="reads in flight on each connection (default: measured while it runs)",
    )
    group.add_argument(
        "--bandwidth",
        type=rate("--bandwidth"),
        metavar="RATE",
        help="read no faster: bytes a second, with K, M or G, as 100M (default: no limit)",
    )
    group.add_argument(
        "--stall-timeout",
        type=stall_timeout,
        metavar="SECONDS",
        help="silence after which a connection counts as lost (default: 60)",
    )


def _add_target(group: Any) -> None:
    group.add_argument(
        "--request-size",
        type=request_size,
        metavar="SIZE",
        help="bytes per write, 64K to 32M (default: what suits the target)",
    )
    group.add_argument(
        "--verify",
        nargs="?",
        const=1.0,
        type=verify,
        metavar="WHAT",
        help="read the target back and compare it: all (default), or sample:5%% of it",
    )
    group.add_argument(
        "--page-cache",
        choices=tuple(PageCache),
        metavar="HOW",
        help="what a local file leaves in this host's memory: auto (default: large disks leave "
        "nothing), keep or drop",
    )


def to_options(args: argparse.Namespace) -> CopyOptions:
    """The defaults of CopyOptions, except where the command line says otherwise."""
    given = vars(args)
    names = [field.name for field in dataclasses.fields(CopyOptions)]
    chosen = {name: given[name] for name in names if given.get(name) is not None}
    if "page_cache" in chosen:
        chosen["page_cache"] = PageCache(chosen["page_cache"])
    return CopyOptions(**chosen)


# Types of values: each takes the word and raises UsageError ---------------------------------------


def at_most(flag: str, most: int) -> Any:
    """A whole number from 1 to `most`."""
    number = positive(flag)

    def parse(word: str) -> int:
        value: int = number(word)
        if value > most:
            raise UsageError(f"{flag} {value}: at most {most} make sense", id="option-value")
        return value

    return parse


def size(flag: str, word: str) -> int:
    """Bytes, with a suffix K, M or G (of 1024): 256K, 4MiB."""
    match = re.fullmatch(r"(\d{1,15})(?:([KMG]?)(?:i?B)?)", word, re.IGNORECASE | re.ASCII)
    if match is None:
        raise UsageError(
            f"{flag}: {word!r} is not a size",
            id="option-value",
            hint=f"for example {flag} 4M; suffixes are K, M and G",
        )
    return int(match[1]) * UNITS[match[2].upper()]


def request_size(word: str) -> int:
    value = size("--request-size", word)
    if not SMALLEST_REQUEST <= value <= LARGEST_REQUEST or value % SMALLEST_REQUEST:
        raise UsageError(
            f"--request-size: {word!r} is not a multiple of 64K from 64K to 32M",
            id="option-value",
            hint="for example --request-size 4M",
        )
    return value


def rate(flag: str) -> Any:
    """Bytes a second; None for `none`."""

    def parse(word: str) -> int | None:
        from v2v.copy.bandwidth import parse_rate

        try:
            return parse_rate(word)
        except UsageError as exc:
            raise UsageError(
                f"{flag}: {word!r} is not a rate",
                id="option-value",
                hint="bytes a second, as 100M; suffixes are K, M and G; none for no limit",
            ) from exc

    return parse


def verify(word: str) -> float:
    """The part to compare: `all`, or `sample:5%`."""
    if word == "all":
        return 1.0
    match = re.fullmatch(r"sample:(\d{1,3}(?:\.\d{1,6})?)%?", word, re.ASCII)
    if match is None or not 0 < float(match[1]) <= 100:
        raise UsageError(
            f"--verify: {word!r} is neither all nor sample:PERCENT",
            id="option-value",
            hint="--verify compares all of it, --verify=sample:5% a twentieth",
        )
    return float(match[1]) / 100


def stall_timeout(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = 0.0
    if not 1 <= value <= 86400:
        raise UsageError(
            f"--stall-timeout: {word!r} is not a number of seconds from 1 to 86400",
            id="option-value",
            hint="for example --stall-timeout 300, for a slow line",
        )
    return value
