"""`v2v list`: the VMs of a host, and whether each could be converted."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from v2v import registry
from v2v.cli import asked, job_options, module_help, unsupported, work
from v2v.cli.manifest import manifest_text
from v2v.cli.parser import Parser
from v2v.cli.summary import json_text
from v2v.errors import UsageError
from v2v.texts import clean, size_text
from v2v.types import GuestSummary

POWER = ("on", "off", "suspended")
HEADINGS = ("VM", "POWER", "DISKS", "SIZE", "USED", "FIRMWARE", "CBT", "SNAPSHOTS", "CONVERTS")
GAP = "  "
LONG_NAME, SHORT_NAME = 24, 12  # what names have before columns are left out, and after that
LESS_NEEDED = ("CBT", "SNAPSHOTS", "FIRMWARE", "USED")  # left out in this order

DESCRIPTION = """\
List the VMs of a vCenter, an ESXi host or a libvirt: whether they run, their disks, what these hold
at most and take at the source, firmware, changed block tracking, snapshots, and whether v2v could
convert each. Only metadata is read, and nothing is changed."""

EPILOG = """\
examples:
  v2v list                                       this host's libvirt
  v2v list -ic esx://root@esxi -ip password
  v2v list -ic vpx://admin@vcenter/DC 'web*' --power off --long
  v2v list -ic vpx://admin@vcenter/DC -ip password --manifest > vms.yaml

Quote patterns, or the shell takes them for files. docs/list.md tells of --json and --manifest."""


def add(commands: Any) -> Parser:
    parser: Parser = commands.add_parser(
        "list",
        help="list the VMs of a host, and whether they could be converted",
        description=DESCRIPTION,
        epilog=EPILOG,
        usage="v2v list [-ic URI] [PATTERN...] [options]",
        unsupported=unsupported.OPTIONS,
    )
    parser.add_argument(
        "patterns",
        nargs="*",
        metavar="PATTERN",
        help="names of VMs, with *, ? and [...] as in a shell; or the id of one",
    )
    job_options.add_input(parser)
    group = parser.add_argument_group("list")
    group.add_argument(
        "--power", choices=POWER, metavar="STATE", help=f"only VMs that are {', '.join(POWER)}"
    )
    form = group.add_mutually_exclusive_group()
    form.add_argument(
        "-l", "--long", action="store_true", help="all that is known, and what stands in the way"
    )
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument(
        "--manifest", action="store_true", help="print YAML to edit: what to convert, and how"
    )
    job_options.add_messages(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    from v2v import api

    _check_patterns(args.patterns)
    if args.__dict__["-i"] is None and args.__dict__["-ic"] is None:
        args.__dict__["-i"] = registry.LIBVIRT
    if "?" in args.io:
        print(module_help.asked_help(args))
        return 0
    choice = asked.input_choice(args)
    found, _ = work.perform(
        args,
        lambda emit, cancel: api.list_guests(
            *args.patterns,
            input=choice.mode,
            input_options=choice.options,
            jobs=job_options.jobs_folder(args),
            emit=emit,
            cancel=cancel,
        ),
        stream=sys.stderr,  # stdout holds the list alone
    )
    guests = [one for one in found if args.power in (None, one.power)]
    if args.manifest:
        print(manifest_text(guests, choice), end="")
    elif args.json:
        print(json_text([_plain(one) for one in guests]))
    else:
        print(_long_text(guests) if args.long else _table_text(guests))
    return 0


def _check_patterns(patterns: Sequence[str]) -> None:
    for word in patterns:
        if "://" in word:
            raise UsageError(
                f"{word} is an address, and no name of a VM",
                id="usage",
                hint="v2v list -ic URI says whose VMs are listed",
            )


def _plain(guest: GuestSummary) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(guest)
    return plain | {"convertible": guest.convertible}


# For people ---------------------------------------------------------------------------------------


def _table_text(guests: Sequence[GuestSummary]) -> str:
    from rich.cells import cell_len

    if not guests:
        return "no VM"
    names = Counter(one.name for one in guests)
    rows = [HEADINGS, *(_row(one, unique=names[one.name] == 1) for one in guests)]
    widths = [max(cell_len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    columns = _fitting(widths, _room())
    lines = [GAP.join(_cell(row[n], widths[n]) for n in columns).rstrip() for row in rows]
    return "\n".join([*lines, "", _verdict(guests)])


def _room() -> int:
    """Columns of the terminal; in a file or a pipe there is room."""
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        return sys.maxsize
    return shutil.get_terminal_size().columns


def _fitting(widths: list[int], room: int) -> list[int]:
    """The columns that are shown; `widths` of names, and at last of reasons, are made smaller."""
    columns = list(range(len(widths)))

    def missing() -> int:
        return sum(widths[n] + len(GAP) for n in columns) - len(GAP) - room

    def shrink(number: int, least: int) -> None:
        widths[number] -= max(0, min(missing(), widths[number] - least))

    shrink(0, LONG_NAME)
    for heading in LESS_NEEDED:
        if missing() > 0:
            columns.remove(HEADINGS.index(heading))
    shrink(0, SHORT_NAME)
    shrink(-1, SHORT_NAME)
    return columns


def _cell(text: str, width: int) -> str:
    """Exactly so wide on a terminal, on which some characters take two columns."""
    from rich.cells import cell_len, set_cell_size

    cut = text if cell_len(text) <= width else f"{set_cell_size(text, width - 1)}…"
    return set_cell_size(cut, width)


def _row(guest: GuestSummary, *, unique: bool) -> tuple[str, ...]:
    blockers = [one.id for one in guest.findings if one.severity == "blocker"]
    warnings = sum(one.severity == "warning" for one in guest.findings)
    notes = f", {warnings} warning{'s' if warnings > 1 else ''}" if warnings else ""
    return (
        clean(guest.name) if unique else f"{clean(guest.name)} ({clean(guest.id)})",
        clean(guest.power),
        str(guest.disks),
        _size(guest.provisioned),
        _size(guest.used),
        guest.firmware or "-",
        {True: "yes", False: "no", None: "-"}[guest.cbt],
        str(len(guest.snapshots) or "-"),
        f"no: {clean(', '.join(blockers))}" if blockers else f"yes{notes}",
    )


def _verdict(guests: Sequence[GuestSummary]) -> str:
    good = sum(one.convertible for one in guests)
    text = f"{good} of {len(guests)} VM{'s' if len(guests) > 1 else ''} could be converted."
    if any(one.findings for one in guests):
        text += " --long tells what stands in the way, and what helps."
    return text


def _long_text(guests: Sequence[GuestSummary]) -> str:
    return "\n\n".join("\n".join(_block(one)) for one in guests) or "no VM"


def _block(guest: GuestSummary) -> list[str]:
    used = f", {_size(guest.used)} used" if guest.used is not None else ""
    facts = (
        ("id", guest.id),
        ("where", guest.where),
        ("power", guest.power),
        ("system", guest.os),
        ("memory", None if guest.memory is None else size_text(guest.memory)),
        ("vCPUs", guest.vcpus),
        ("disks", f"{guest.disks}, {_size(guest.provisioned)}{used}"),
        ("firmware", guest.firmware),
        ("CBT", {True: "on", False: "off", None: None}[guest.cbt]),
        ("snapshots", ", ".join(guest.snapshots)),
        ("converts", "yes" if guest.convertible else "no"),
    )
    lines = [clean(guest.name)]
    lines += [f"  {label:<10} {clean(str(value))}" for label, value in facts if value]
    for one in guest.findings:
        lines.append(f"  {one.severity}: {clean(one.text)} ({one.id})")
        lines += [f"    hint: {clean(one.hint)}"] if one.hint else []
    return lines


def _size(size: int | None) -> str:
    return "-" if size is None else size_text(size)
