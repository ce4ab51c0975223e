"""`v2v completion`: a script that completes v2v's options in a shell."""

from __future__ import annotations

import argparse
from typing import Any

from v2v import registry
from v2v.cli.parser import Parser
from v2v.types import DiskFormat

SHELLS = ("bash", "zsh", "tcsh")

EPILOG = """\
examples:
  v2v completion bash > /etc/bash_completion.d/v2v
  v2v completion zsh > "${fpath[1]}/_v2v"

docs/completion.md tells more."""

FILES = ("guests", "source", "target", "images", "check", "tls_psk_file", "-ip", "-op", "-os")
FOLDERS = ("jobs_dir", "socket_dir", "fuse", "tls_certificates")


def add(commands: Any) -> Parser:
    parser: Parser = commands.add_parser(
        "completion",
        help="print a completion script for a shell",
        description="Print a script that completes v2v's commands and options.",
        epilog=EPILOG,
    )
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    return parser


def run(args: argparse.Namespace) -> int:
    import shtab

    from v2v.cli.main import build_parser

    top, parsers = build_parser()
    for parser in parsers.values():
        _teach(parser, shtab)
    print(shtab.complete(top, shell=args.shell))
    return 0


def _teach(parser: Parser, shtab: Any) -> None:
    """What the values of options can be, for shtab."""
    choices = {
        "-i": sorted(registry.inputs()),
        "-o": sorted(registry.outputs()),
        "-if": [str(format) for format in DiskFormat],
        "-of": ["raw", "qcow2"],
        "-oa": ["sparse", "preallocated"],
        "verify": ["all", "sample:5%"],
        "root": ["single", "first", "ask"],
        "mode": sorted({*registry.inputs(), *registry.outputs()}),
    }
    for action in parser._actions:
        if action.dest in choices:
            action.choices = choices[action.dest]
        if action.dest in FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        if action.dest in FOLDERS:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
