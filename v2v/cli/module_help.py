"""What the options of an input or output are: `-io ?`, `-oo ?` and `v2v modes MODE`."""

from __future__ import annotations

import argparse

from v2v import options, registry
from v2v.cli.asked import input_choice, output_choice


def asked_help(args: argparse.Namespace) -> str:
    """What `-io ?` and `-oo ?` print."""
    if "?" in args.io:
        args.io.remove("?")
        return _module_help("-io", registry.find_input(input_choice(args).mode).Options)
    args.oo.remove("?")
    return _module_help("-oo", registry.find_output(output_choice(args).mode).Options)


def _module_help(flag: str, cls: type) -> str:
    rows = [row for row in options.describe(cls) if row.flag.startswith(f"{flag} ")]
    if not rows:
        return f"No {flag} options here."
    return "\n".join(option_line(row) for row in rows)


def option_line(row: options.OptionHelp) -> str:
    spelling = row.flag + (f"={row.metavar}" if row.metavar and " " in row.flag else "")
    if row.metavar and " " not in row.flag:
        spelling += f" {row.metavar}"
    if row.default is None:
        note = " (required)"
    else:
        note = f" (default: {row.default})" if row.default not in ("None", "False", "") else ""
    gap = "\n" + " " * 31 if len(spelling) > 28 else " "
    return f"  {spelling:<28}{gap}{row.help}{note}"
