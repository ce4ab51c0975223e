"""The `v2v` command: its parser, its subcommands, its errors and exit codes."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from v2v import __version__
from v2v.cli import (
    checksum,
    completion,
    convert,
    copy,
    doctor,
    inspect,
    jobs,
    listing,
    modes,
    open,
    resume,
    undo,
)
from v2v.cli.parser import Parser
from v2v.errors import UsageError, V2VError
from v2v.options import did_you_mean
from v2v.texts import clean

COMMANDS = (
    listing,
    convert,
    inspect,
    open,
    copy,
    checksum,
    doctor,
    modes,
    jobs,
    resume,
    undo,
    completion,
)

DESCRIPTION = """\
Move virtual machines to KVM: read them where they are, repair them so that they boot on virtio
devices, copy them, and prove that they boot. The source is never written."""

EPILOG = """\
examples:
  v2v doctor                                   can this host do it?
  v2v list -ic esx://root@esxi                 which VMs are there, and do they convert?
  v2v inspect -i disk vm.vmdk                  what is this guest, and would it convert?
  v2v convert -i disk vm.vmdk -o local -os /var/lib/libvirt/images --boot-check
  v2v open -i disk vm.vmdk --fuse /mnt/vm      look into it with other programs
  v2v copy disk.vmdk disk.raw                  one disk, and nothing but a copy
  v2v checksum disk.vmdk disk.raw              is it the same disk?
  v2v jobs                                     what was started, and how it ended

Words that begin with an option are taken as `v2v convert`, so that a command line of virt-v2v
works as it is: v2v -i disk vm.vmdk -o local -os /var/tmp

exit codes: 0 done, 1 unexpected, 2 usage, 3 host, 4 source, 5 guest, 6 target, 7 copy,
8 boot check, 9 job, 130 cancelled. `v2v COMMAND --help` tells more of a command."""


def build_parser() -> tuple[Parser, dict[str, Parser]]:
    """The whole parser (for help and completion), and the parser of each command."""
    top = Parser(prog="v2v", description=DESCRIPTION, epilog=EPILOG)
    top.add_argument("-V", "--version", action="version", version=f"v2v {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)
    parsers = {}
    for module in COMMANDS:
        parser = module.add(commands)
        parser.set_defaults(run=module.run)
        parsers[parser.prog.split()[-1]] = parser
    return top, parsers


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one command line and exit with its code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run_and_flush(words)
    except V2VError as exc:
        report_error(exc)
        code = exc.exit_code
    except KeyboardInterrupt:
        print("v2v: cancelled", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # whoever read our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except Exception as exc:  # noqa: BLE001 - the program's last line
        report_unexpected(exc, verbose=any(word in ("-v", "--verbose", "-x") for word in words))
        code = 1
    sys.exit(code)


def _run_and_flush(words: list[str]) -> int:
    try:
        code = run(words)
    except SystemExit:  # a help page: at exit Python would tell of a reader that has left
        sys.stdout.flush()
        raise
    sys.stdout.flush()
    return code


def run(words: list[str]) -> int:
    args = parse(words)
    code: int = args.run(args)
    return code


def parse(words: list[str]) -> argparse.Namespace:
    top, parsers = build_parser()
    if not words:
        top.print_help()
        sys.exit(2)
    if words[0] in ("-h", "--help", "-help", "-V", "--version", "-version"):
        top.parse_args(["--help" if "h" in words[0] else "--version"])
    command, rest = words[0], words[1:]
    if command.startswith("-"):
        command, rest = "convert", words
    if command not in parsers:
        raise UsageError(
            f"{command}: no such command",
            id="command-unknown",
            hint=did_you_mean(command, parsers) or f"one of {', '.join(parsers)}",
        )
    return parsers[command].parse(rest)


# Errors -------------------------------------------------------------------------------------------


def report_error(exc: V2VError) -> None:
    lines = [f"v2v: error: {clean(exc.message)}"]
    if exc.hint:
        lines.append(f"  hint: {clean(exc.hint)}")
    if exc.id != "cancelled":
        lines.append(f"  id: {exc.id}")
    _print_error(lines, exc)


def report_unexpected(exc: Exception, *, verbose: bool) -> None:
    """A bug, or a failure nobody thought of. The job's log holds the traceback."""
    if verbose:
        traceback.print_exception(exc)
    lines = [
        f"v2v: error: unexpected {type(exc).__name__}: {clean(str(exc))}",
        "  hint: run it again with -v for the traceback, and report it with the job's log/v2v.log",
        "  id: unexpected",
    ]
    _print_error(lines, exc)


def _print_error(lines: list[str], exc: BaseException) -> None:
    notes = [f"  {note}" for note in getattr(exc, "__notes__", ())]
    print("\n".join([*lines, *notes]), file=sys.stderr)
