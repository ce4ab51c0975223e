"""Jobs: start one, go on with it, take it back, discard it."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from v2v import events, registry, source_changes
from v2v.api.execution import LOG_FORMAT, Result, execute, parts_of, remove
from v2v.cancel import Cancel
from v2v.copy.bandwidth import parse_rate
from v2v.errors import JobError, UsageError, V2VError
from v2v.events import Emit
from v2v.job import Job, ModuleChoice
from v2v.logs import LogFile, logged_to
from v2v.run import BANDWIDTH, Run, default_jobs_folder, unknown_job
from v2v.types import SourceChange

LOGIN = "-ip"


def start(
    job: Job,
    *,
    jobs: Path | None = None,
    emit: Emit = events.ignore,
    cancel: Cancel | None = None,
) -> Result:
    """Run a new job to its end. Its folder is made in `jobs`, or in the default place."""
    job = registry.anchored(job)
    parts = parts_of(job)  # a wrong option is refused before a folder is made
    name = job.name or Path(job.guests[0]).name
    with Run.create(jobs or default_jobs_folder(), name, emit=emit, cancel=cancel) as run:
        run.journal.put("created", time.time())
        run.journal.put("job", job)
        try:
            return execute(job, parts, run, resumed=False)
        except UsageError:  # it was asked for wrongly: there is nothing to go on with
            if not source_changes.pending(run):
                remove(parts[1], run)
            raise


def resume(
    job_id: str,
    *,
    source_unchanged: bool = False,
    jobs: Path | None = None,
    emit: Emit = events.ignore,
    cancel: Cancel | None = None,
) -> Result:
    """Go on with a job that died, failed or was cancelled; what it finished is not repeated.

    A copy that had not finished begins again if its source cannot tell whether it changed.
    source_unchanged: it has not, as the caller knows; the copy goes on where it was.
    """
    with Run.open((jobs or default_jobs_folder()) / job_id, emit=emit, cancel=cancel) as run:
        job = run.journal.get("job", Job)
        return execute(job, parts_of(job), run, resumed=True, source_unchanged=source_unchanged)


def discard(job_id: str, *, jobs: Path | None = None, emit: Emit = events.ignore) -> None:
    """Remove what an unfinished job left at its target, then its folder. Finished guests stay.

    What it changed at its source is undone first, and nothing is removed if that fails; a VM that
    was shut down for a finished job stays off.
    """
    with Run.open((jobs or default_jobs_folder()) / job_id, emit=emit) as run:
        if "job" in run.journal:
            job = run.journal.get("job", Job)
            _undo_before_discard(job, run)
            remove(registry.make_output(job), run)
        else:  # it was killed before it had begun
            shutil.rmtree(run.folder)


def _undo_before_discard(job: Job, run: Run) -> None:
    """The journal is the only place that knows of these changes."""
    finished = "finalize" in run.journal
    if not source_changes.pending(run):
        return
    try:
        choice = ModuleChoice(job.input.mode, _words_here(job.input))
        input_ = registry.make_input(choice, job.guests)
        source_changes.undo_all(run, input_.undo, temporary_only=finished)
    except V2VError as exc:
        raise JobError(
            f"{run.job_id} is kept, for it changed its source, which cannot be undone now: "
            f"{exc.message}",
            id="source-changes-kept",
            hint="`v2v undo` it once the source can be reached, then discard it; "
            f"if the source is gone for good, remove {run.folder}",
        ) from exc


def undo(
    job_id: str,
    *,
    input_options: dict[str, str] | None = None,
    jobs: Path | None = None,
    emit: Emit = events.ignore,
    cancel: Cancel | None = None,
) -> tuple[SourceChange, ...]:
    """Take back what a job changed at its source, last first; gives what was taken back.

    Needs the job's journal and nothing else of it. input_options: instead of the job's own, such
    as {"-ip": "/root/password"} on a host where the job's file is not. What is not there any more
    counts as undone, so that it may be done again.
    """
    with Run.open((jobs or default_jobs_folder()) / job_id, emit=emit, cancel=cancel) as run:
        if "job" not in run.journal or not source_changes.pending(run):
            return ()
        job = run.journal.get("job", Job)
        choice = ModuleChoice(job.input.mode, _words_here(job.input) | (input_options or {}))
        input_ = registry.make_input(choice, job.guests)
        log_file = LogFile(run.folder / "log" / "v2v.log")
        (run.folder / "log").mkdir(exist_ok=True)
        with logged_to(log_file, LOG_FORMAT):
            return source_changes.undo_all(run, input_.undo)


def _words_here(choice: ModuleChoice) -> dict[str, str]:
    """Without a password file that is not on this host: the input finds another way."""
    words = dict(choice.options)
    if LOGIN in words and not Path(words[LOGIN]).exists():
        del words[LOGIN]
    return words


def limit_bandwidth(job_id: str, rate: int | str | None, *, jobs: Path | None = None) -> None:
    """Change how fast a job may read, also while it runs: bytes per second, "50M", or None.

    It stays so when the job is resumed. Raises UsageError for what is no rate, JobError for an
    unknown job.
    """
    limit = parse_rate(str(rate)) if rate is not None else None
    folder = (jobs or default_jobs_folder()) / job_id
    if not (folder / "journal").is_file():
        raise unknown_job(folder)
    working = folder / f".bandwidth-{os.getpid()}.new"
    working.write_text(f"{limit or 'none'}\n")
    working.replace(folder / BANDWIDTH)
