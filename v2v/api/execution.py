"""One execution of one job: migrate, leave a report, and undo what was stopped."""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conversion import converter_for
from v2v import __version__, coordinator, events, overlay, registry, report, source_changes
from v2v.api.listing import IDENTITY, State
from v2v.cancel import Cancel
from v2v.errors import Cancelled, UsageError, V2VError
from v2v.job import Job
from v2v.logs import LogFile, logged_to
from v2v.output import DATA, forget_progress
from v2v.run import Run
from v2v.types import BootEvidence, ConvertedGuest, CopyResult, GuestRef, Source, TargetDisk

log = logging.getLogger(__name__)

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@dataclass(frozen=True, slots=True)
class Result:
    """A finished job."""

    job_id: str
    folder: Path
    guest: GuestRef
    converted: ConvertedGuest
    report: Path  # report.html
    boot: BootEvidence | None
    copies: tuple[CopyResult, ...] = ()  # one per disk


def parts_of(job: Job) -> tuple[Any, Any, Any]:
    return (
        registry.make_input(job.input, job.guests),
        registry.make_output(job),
        converter_for(job.conversion),
    )


def execute(
    job: Job,
    parts: tuple[Any, Any, Any],
    run: Run,
    *,
    resumed: bool,
    source_unchanged: bool = False,
) -> Result:
    """Migrate, and leave a report whatever happens."""
    input_, output, converter = parts
    began = time.time()
    run.journal.put("state", State("running"))
    name = job.name or Path(job.guests[0]).name
    run.emit(events.JobStarted, name=name, folder=str(run.folder), resumed=resumed)
    log_file = LogFile(run.folder / "log" / "v2v.log")
    with logged_to(log_file, LOG_FORMAT):
        try:
            outcome = coordinator.migrate(
                job, input_, output, converter, run, source_unchanged=source_unchanged
            )
        except (Cancelled, KeyboardInterrupt):
            if "finalize" not in run.journal and not output.existing:
                try:
                    _undo(output, run)
                finally:
                    source_changes.undo_of_stopped(run, input_.undo)
            else:
                source_changes.warn_of_kept(run)
            _end(run, job, began, State("cancelled", "cancelled", "cancelled"))
            raise Cancelled from None
        except V2VError as exc:
            state = State("failed", exc.id, exc.message, exc.hint)
            _end(run, job, began, state, kept=_kept(exc, input_, run, resumed=resumed))
            raise
        except Exception as exc:
            log.exception("a bug, or a failure nobody thought of")
            source_changes.warn_of_kept(run)
            _end(run, job, began, State("failed", "unexpected", f"{type(exc).__name__}: {exc}"))
            raise
        page = _end(run, job, began, State("finished"))
    return Result(
        run.job_id,
        run.folder,
        outcome.ref,
        outcome.guest,
        page,
        outcome.boot,
        outcome.copies,
    )


def _kept(exc: V2VError, input_: Any, run: Run, *, resumed: bool) -> bool:
    """Whether a job that failed can be resumed; its changes at the source stay for that."""
    if isinstance(exc, UsageError) and not resumed:
        source_changes.undo_of_stopped(run, input_.undo)
        return bool(source_changes.pending(run))
    source_changes.warn_of_kept(run)
    return True


def _end(run: Run, job: Job, began: float, state: State, *, kept: bool = True) -> Path:
    run.journal.put("state", state)
    page = _write_report(_report(run, job, began, state), run)
    seconds = time.time() - began
    if state.error is None:
        run.emit(events.JobFinished, seconds=seconds, report=str(page))
    else:
        run.emit(
            events.JobFailed,
            error=state.error,
            message=state.message or "",
            hint=state.hint,
            resumable=kept,
        )
    return page


def _write_report(content: report.Report, run: Run) -> Path:
    """A job does not fail for its report."""
    try:
        return report.write(content, run.folder)
    except OSError as exc:
        run.warn(f"no report could be written: {exc.strerror}", id="no-report")
        return run.folder / "report.html"


def _undo(output: Any, run: Run) -> None:
    """Leave nothing of an unfinished copy; the job starts from its beginning if it is resumed.

    The target's disks are forgotten before they are removed, in case that we are killed in between;
    removing the overlays makes room for that, should the journal's disk be full. What the output
    itself has written down is forgotten last: by that it knows what is its own.
    """
    disks = run.journal.get("disks", tuple[TargetDisk, ...]) if "disks" in run.journal else ()
    overlay.discard_overlays(run)
    forget_progress(run)
    copied = [f"copied:{index}" for index in range(len(disks))]
    run.journal.drop(["disks", "guest", "copied", DATA, *copied])
    output.discard(disks, run.part(cancel=Cancel()))  # also of a job that was cancelled
    run.journal.forget(keep=(*IDENTITY, *source_changes.keys(run)))


def remove(output: Any, run: Run) -> None:
    if "finalize" not in run.journal:
        _undo(output, run)
    shutil.rmtree(run.folder)


def _report(run: Run, job: Job, began: float, state: State) -> report.Report:
    def recorded(key: str, kind: Any) -> Any:
        return run.journal.get(key, kind) if key in run.journal else None

    boot = recorded("boot-check", BootEvidence) or recorded("boot-check-failed", BootEvidence)
    source = recorded("source", Source)
    disks = range(len(source.disks)) if source else ()
    copies = [recorded(f"copied:{i}", CopyResult) for i in disks]
    return report.Report(
        version=__version__,
        job_id=run.job_id,
        status=state.state,
        error=state.error,
        message=state.message,
        hint=state.hint,
        started=began,
        finished=time.time(),
        job=job,
        source=source,
        guest=recorded("guest", ConvertedGuest),
        copies=tuple(copy for copy in copies if copy),
        ref=recorded("finalize", GuestRef),
        boot=boot,
        timings=tuple(run.timings),
    )
