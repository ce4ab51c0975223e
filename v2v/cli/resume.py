"""`v2v resume`: go on with a job that failed, was cancelled or died."""

from __future__ import annotations

import argparse
from typing import Any

from v2v.cli import job_options, summary, work
from v2v.cli.parser import Parser

DESCRIPTION = """\
Go on with a job that failed, was cancelled, or died with its host. Every step that it finished is
in its journal and is not repeated; the options are those it was started with. A copy that had not
finished begins again if its source, such as an NBD export, cannot tell whether it changed."""


def add(commands: Any) -> Parser:
    parser: Parser = commands.add_parser(
        "resume",
        help="go on with an unfinished job",
        description=DESCRIPTION,
        epilog="examples:\n  v2v jobs\n  v2v resume 20260301-101500-web-3f2a",
    )
    parser.add_argument("job", metavar="JOB", help="its id, as `v2v jobs` lists it")
    parser.add_argument(
        "--source-unchanged",
        action="store_true",
        help="nobody wrote to the source since the job was started: go on where its copy was, "
        "also if the source cannot tell",
    )
    job_options.add_messages(parser)
    parser.add_argument(
        "--json",
        action="store_const",
        const="json",
        default=argparse.SUPPRESS,
        dest="progress",
        help="the same as --progress json",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    from v2v import api

    result, watch = work.perform(
        args,
        lambda emit, cancel: api.resume(
            args.job,
            source_unchanged=args.source_unchanged,
            jobs=job_options.jobs_folder(args),
            emit=emit,
            cancel=cancel,
        ),
    )
    if summary.wanted(args):
        print(summary.text(result, watch.steps))
    return 0
