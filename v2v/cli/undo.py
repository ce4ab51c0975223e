"""`v2v undo`: take back what a job changed at its source."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from v2v.cli import asked, job_options, work
from v2v.cli.parser import Parser
from v2v.errors import UsageError
from v2v.run import default_jobs_folder, unknown_job
from v2v.texts import clean

if TYPE_CHECKING:
    from v2v.api import JobSummary

DESCRIPTION = """\
Take back what a job changed at its source because it was asked to: delete its snapshot, start the
VM that it shut down. The job's journal tells; it is all that is needed, on whatever host. What is
not there any more is no error, so that it may be done again."""

EPILOG = """\
examples:
  v2v undo --list                            what jobs have left at their sources
  v2v undo 20260301-101500-web-3f2a
  v2v undo 20260301-101500-web-3f2a -ip password --jobs-dir /mnt/other-host/jobs"""


def add(commands: Any) -> Parser:
    parser: Parser = commands.add_parser(
        "undo",
        help="take back what a job changed at its source",
        description=DESCRIPTION,
        epilog=EPILOG,
        usage="v2v undo JOB [-ip FILE] [options]\n       v2v undo --list [JOB] [--jobs-dir DIR]",
    )
    parser.add_argument("job", nargs="?", metavar="JOB", help="its id, as `v2v jobs` lists it")
    parser.add_argument(
        "--list", action="store_true", help="only list what would be taken back, of one job or all"
    )
    group = parser.add_argument_group("input")
    job_options.once(group, "-ip", "FILE", "file that holds the password, instead of the job's own")
    group.add_argument(
        "-io",
        action="append",
        default=[],
        metavar="KEY[=VALUE]",
        help="an option of the input, instead of the job's own; may be repeated",
    )
    job_options.add_messages(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    if args.list:
        return _list(args)
    if not args.job:
        raise UsageError(
            "v2v undo: which job?", id="usage", hint="`v2v undo --list` lists what there is to undo"
        )
    return _undo(args)


def _list(args: argparse.Namespace) -> int:
    changes = [(job, one) for job in _jobs(args) for one in job.source_changes]
    for job, one in changes:
        print(f"{job.job_id}  {job.state:<11}  {clean(one.what)}")
    if not changes:
        print("nothing to undo")
    return 0


def _undo(args: argparse.Namespace) -> int:
    from v2v import api

    (job,) = _jobs(args)
    undone, _ = work.perform(
        args,
        lambda emit, cancel: api.undo(
            job.job_id,
            input_options=asked.image_words(args),
            jobs=job_options.jobs_folder(args),
            emit=emit,
            cancel=cancel,
        ),
        stream=sys.stderr,
    )
    for one in undone:
        print(f"undone: {clean(one.what)}")
    if not undone:
        print(f"{job.job_id}: nothing to undo")
    return 0


def _jobs(args: argparse.Namespace) -> list[JobSummary]:
    """The job that is named, or all."""
    from v2v import api

    folder = job_options.jobs_folder(args) or default_jobs_folder()
    jobs = api.list_jobs(folder)
    if args.job is None:
        return jobs
    found = [job for job in jobs if job.job_id == args.job]
    if not found:
        raise unknown_job(folder / args.job)
    return found
