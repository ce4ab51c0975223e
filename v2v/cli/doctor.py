"""`v2v doctor`: what can this host do, and which package does it miss?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from v2v.cli import job_options
from v2v.cli.parser import Parser
from v2v.cli.summary import json_text
from v2v.texts import clean

NOT_USABLE = 3  # the exit code of HostError

DESCRIPTION = """\
Check what this host can do: programs and their versions, Python bindings, the appliance and its
kernel, whether KVM truly works, free space, and which inputs and outputs are usable. What is
missing is told with the package that brings it."""

EPILOG = """\
examples:
  v2v doctor
  v2v doctor --launch       start an appliance too, as a conversion would

Exit code 0 if v2v works here (perhaps slower, or without some modes), 3 if not."""

MARKS = {"ok": ("✓", "32"), "warning": ("!", "33"), "missing": ("✗", "31")}


def add(commands: Any) -> Parser:
    parser: Parser = commands.add_parser(
        "doctor", help="tell what this host can do", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument(
        "--launch", action="store_true", help="really start an appliance (takes up to a minute)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    job_options.add_jobs_dir(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    from v2v import doctor
    from v2v.run import default_jobs_folder

    jobs = job_options.jobs_folder(args) or default_jobs_folder()
    checks = doctor.examine(jobs, launch=args.launch)
    works = doctor.usable(checks)
    if args.json:
        print(json_text({"usable": works, "checks": checks}))
    else:
        print(text(checks, works, color=sys.stdout.isatty()))
    return 0 if works else NOT_USABLE


def text(checks: Sequence[Any], works: bool, *, color: bool) -> str:
    lines = []
    group = None
    for check in checks:
        if check.group != group:
            group = check.group
            lines.append(f"{group}:")
        mark, code = MARKS[check.status]
        mark = f"\033[{code}m{mark}\033[0m" if color else mark
        lines.append(f"  {mark} {check.name:<20} {clean(check.detail)}")
        if check.hint and check.status != "ok":
            lines.append(f"      {check.hint}")
    lines.append("\nv2v works here." if works else "\nv2v does not work here yet: see ✗ above.")
    return "\n".join(lines)
