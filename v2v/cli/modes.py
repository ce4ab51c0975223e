"""`v2v modes`: the inputs and outputs there are, and the options of each."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from v2v import options, registry
from v2v.cli import module_help
from v2v.cli.parser import Parser
from v2v.errors import UsageError
from v2v.input import Input
from v2v.output import Output

STORAGE = options.OptionHelp(
    "--storage", "IN:OUT", "put disk number IN, or those on the source's storage IN, on OUT", ""
)

EPILOG = """\
examples:
  v2v modes            every input and output
  v2v modes local      the options of -o local"""


def add(commands: Any) -> Parser:
    parser: Parser = commands.add_parser(
        "modes",
        help="list inputs and outputs with their options",
        description="List the inputs (-i) and outputs (-o), or tell the options of one of them.",
        epilog=EPILOG,
    )
    parser.add_argument("mode", nargs="?", metavar="MODE", help="tell of this mode only")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def run(args: argparse.Namespace) -> int:
    rows = [row for row in _rows() if args.mode in (None, row["mode"], *row["aliases"])]
    if args.mode and not rows:
        known = sorted({row["mode"] for row in _rows()})
        raise UsageError(
            f"{args.mode}: no such mode",
            id="mode-unknown",
            hint=options.did_you_mean(args.mode, known) or f"there are {', '.join(known)}",
        )
    print(json.dumps(rows, indent=2) if args.json else _text(rows, details=bool(args.mode)))
    return 0


def _rows() -> list[dict[str, Any]]:
    groups: list[tuple[str, str, dict[str, Any]]] = [
        ("input", "-i", dict(registry.inputs())),
        ("output", "-o", dict(registry.outputs())),
    ]
    return [
        {
            "kind": kind,
            "flag": flag,
            "mode": mode,
            "aliases": list(cls.aliases),
            "summary": cls.summary,
            "tools": list(cls.tools),
            "options": [asdict(row) for row in _options(cls)],
        }
        for kind, flag, known in groups
        for mode, cls in known.items()
    ]


def _options(cls: type[Input] | type[Output]) -> list[options.OptionHelp]:
    rows = options.describe(cls.Options)
    takes_storage = issubclass(cls, Output) and cls.per_disk_storage
    return [*rows, STORAGE] if takes_storage else rows


def _text(rows: list[dict[str, Any]], *, details: bool) -> str:
    lines = []
    for row in rows:
        also = f" (also {', '.join(row['aliases'])})" if row["aliases"] else ""
        lines.append(f"{row['flag']} {row['mode']:<12} {row['summary']}{also}")
        if details:
            lines += [module_help.option_line(options.OptionHelp(**o)) for o in row["options"]]
    if not details:
        lines.append("\n`v2v modes MODE` tells the options of one.")
    return "\n".join(lines)
