"""`v2v inspect`: what is this guest, would it convert, and what would be changed?"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from v2v.cli import asked, job_options, keys, module_help, summary, unsupported, work
from v2v.cli.parser import Parser
from v2v.converter import Inspection
from v2v.texts import clean
from v2v.types import Finding

NOT_CONVERTIBLE = 5  # the exit code of GuestError

DESCRIPTION = """\
Look at a VM: its system, its firmware, the kernel that will boot, what a conversion would change
and why, and what stands in the way. Changes nothing, neither source nor target."""

EPILOG = """\
examples:
  v2v inspect -i disk vm.vmdk
  v2v inspect -i disk system.raw data.raw --json > inspection.json

Exit code 0 if the guest would convert, 5 if not."""


def add(commands: Any) -> Parser:
    parser: Parser = commands.add_parser(
        "inspect",
        help="tell what a VM is and what conversion would change",
        description=DESCRIPTION,
        epilog=EPILOG,
        usage="v2v inspect [-i MODE] GUEST... [options]",
        unsupported=unsupported.OPTIONS,
    )
    job_options.add_guests(parser)
    job_options.add_input(parser)
    job_options.add_guest(parser)
    job_options.add_messages(parser)
    parser.add_argument("--json", action="store_true", help="print the inspection as JSON")
    return parser


def run(args: argparse.Namespace) -> int:
    from v2v import api

    if "?" in args.io:
        print(module_help.asked_help(args))
        return 0
    with keys.key_files(args.key, from_stdin=args.keys_from_stdin) as key_files:
        job = asked.to_job(args, key_files)
        found, _ = work.perform(
            args,
            lambda emit, cancel: api.inspect_guest(
                job, jobs=job_options.jobs_folder(args), emit=emit, cancel=cancel
            ),
            stream=sys.stderr,  # stdout holds the inspection alone
        )
    print(summary.json_text(found) if args.json else text(found))
    return 0 if found.convertible else NOT_CONVERTIBLE


def text(found: Inspection) -> str:
    """The inspection for people."""
    return "\n".join([*_system(found), *_network(found), *_changes(found), *_verdict(found)])


def _system(found: Inspection) -> list[str]:
    os = found.os
    others = [root for root in found.roots if root != found.root]
    rows = (
        ("system", f"{os.product or os.distro} ({os.type}, {os.arch})"),
        ("host name", os.hostname),
        ("firmware", found.firmware),
        ("root", found.root + (f" (also found: {', '.join(others)})" if others else "")),
        ("boots from", f"disk {found.boot_disk + 1}"),
        ("kernel", found.kernel or "none found"),
    )
    lines = [f"{label:<11} {clean(value)}" for label, value in rows if value]
    filesystems = [f"{device} {kind}" for device, kind in found.filesystems.items()]
    return [*lines, f"{'filesystems':<11} {clean(', '.join(filesystems))}"]


def _network(found: Inspection) -> list[str]:
    return [
        f"{'NIC':<11} "
        + clean(f"{nic.name or 'not configured'}, MAC {nic.mac}, on {nic.kind} {nic.network}")
        for nic in found.nics
    ]


def _changes(found: Inspection) -> list[str]:
    """What belongs together is told once, with all its files."""
    if not found.changes:
        return ["", "Conversion would change nothing."]
    files: dict[tuple[str, str], list[str]] = {}
    for change in found.changes:
        where = files.setdefault((change.what, change.why), [])
        if change.where and change.where not in where and change.where not in change.what:
            where.append(change.where)
    lines = ["", "Conversion would change:"]
    for (what, why), where in files.items():
        place = f" [{', '.join(where)}]" if where else ""
        lines += [f"  - {clean(what + place)}", f"      because {clean(why)}"]
    return lines


def _verdict(found: Inspection) -> list[str]:
    lines = [""] if found.findings else []
    for finding in sorted(found.findings, key=_weight):
        lines.append(f"{finding.severity}: {clean(finding.text)} ({finding.id})")
        if finding.hint:
            lines.append(f"  hint: {clean(finding.hint)}")
    verdict = "This guest converts." if found.convertible else "This guest does not convert."
    return [*lines, "", verdict]


def _weight(finding: Finding) -> int:
    return ("blocker", "warning", "info").index(finding.severity)
