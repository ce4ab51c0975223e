"""`v2v jobs`: what was started on this host, and how it ended."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from v2v import ui
from v2v.cli import copy_options, job_options
from v2v.cli.parser import Parser
from v2v.cli.summary import json_text
from v2v.errors import UsageError
from v2v.texts import clean, clock_text, size_text

EPILOG = """\
examples:
  v2v jobs
  v2v jobs discard 20260301-101500-web-3f2a     remove what it left, at the target too
  v2v jobs limit 20260301-101500-web-3f2a 50M   let it read no more than 50 MiB a second from now on
  v2v jobs limit 20260301-101500-web-3f2a none  as fast as it can again

A job is running, finished, failed, cancelled or interrupted; `v2v resume JOB` goes on with those
that are not finished. Discarding a finished job removes its folder; its guest stays."""


def add(commands: Any) -> Parser:
    parser: Parser = commands.add_parser(
        "jobs",
        help="list jobs, discard one, or limit its bandwidth",
        description="List the jobs of this host, oldest first; discard one; or change how fast a "
        "running one may read.",
        epilog=EPILOG,
        usage="v2v jobs [--json] [--jobs-dir DIR]\n       v2v jobs discard JOB...\n"
        "       v2v jobs limit JOB RATE",
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="ACTION JOB",
        help="discard JOB...: remove these jobs; limit JOB RATE: change the bandwidth of one",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    job_options.add_jobs_dir(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    if not args.words:
        return _list(args)
    action, *words = args.words
    if action == "discard" and words:
        return _discard(args, words)
    if action == "limit" and len(words) == 2:
        return _limit(args, *words)
    raise UsageError(
        f"v2v jobs {' '.join(args.words)}: not understood",
        id="usage",
        hint="v2v jobs discard JOB..., or v2v jobs limit JOB RATE",
    )


def _list(args: argparse.Namespace) -> int:
    from v2v import api
    from v2v.image_copy import state as copy_state

    jobs = job_options.jobs_folder(args)
    found = api.list_jobs(jobs)
    if args.json:
        print(json_text([_plain(job) for job in found]))
        return 0
    print("\n".join(_table(found)) if found else "no jobs")
    if any(one.temporary for job in found for one in job.source_changes if job.state != "running"):
        print("there are changes that jobs left at their sources: `v2v undo --list`")
    if copies := copy_state.unfinished(jobs):
        print("unfinished copies; --force instead of --resume begins again:")
        for copy in copies:
            print(f"  {clean(copy_state.command(copy, '--resume', jobs))}")
    return 0


def _table(found: Sequence[Any]) -> list[str]:
    states = [job.state + (f" ({job.error})" if job.state == "failed" else "") for job in found]
    ids = max(len(job.job_id) for job in found)
    width = max(map(len, states))
    return [
        f"{job.job_id:<{ids}}  {clock_text(job.started)}  {state:<{width}}  {clean(job.name)}"
        for job, state in zip(found, states, strict=True)
    ]


def _plain(job: Any) -> dict[str, Any]:
    return {
        "job": job.job_id,
        "name": job.name,
        "state": job.state,
        "error": job.error,
        "started": job.started,
        "steps": list(job.steps),
        "source_changes": [one.what for one in job.source_changes],
        "folder": str(job.folder),
    }


def _discard(args: argparse.Namespace, job_ids: list[str]) -> int:
    from v2v import api

    for job_id in job_ids:
        # What cannot be removed is told by a warning, and the job that knew of it is gone.
        api.discard(job_id, jobs=job_options.jobs_folder(args), emit=ui.Quiet(sys.stderr))
        print(f"{job_id}: discarded")
    return 0


def _limit(args: argparse.Namespace, job_id: str, word: str) -> int:
    from v2v import api

    rate = copy_options.rate("v2v jobs limit")(word)
    api.limit_bandwidth(job_id, rate, jobs=job_options.jobs_folder(args))
    print(f"{job_id}: " + (f"at most {size_text(rate)}/s" if rate else "no limit"))
    return 0
