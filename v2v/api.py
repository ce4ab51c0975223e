"""The library: start, resume, inspect and list jobs.

Everything here is typed and raises v2v.errors.V2VError. `emit` gets the job's events (v2v.events),
`cancel` is a v2v.cancel.Cancel that stops it. `import v2v` alone loads none of this.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec

from conversion import converter_for
from v2v import (
    __version__,
    coordinator,
    events,
    journal,
    opening,
    overlay,
    registry,
    report,
    source_changes,
)
from v2v.cancel import Cancel
from v2v.converter import Inspection
from v2v.copy.bandwidth import parse_rate
from v2v.errors import Cancelled, GuestError, JobError, UsageError, V2VError
from v2v.events import Emit
from v2v.job import ConversionOptions, CopyOptions, Job, ModuleChoice, NicMap, StorageMap
from v2v.logs import LogFile, logged_to
from v2v.opening import Exposure, OpenedGuest
from v2v.output import DATA, forget_progress
from v2v.run import BANDWIDTH, Run, default_jobs_folder, remove_stale_tmp, unknown_job
from v2v.types import (
    BootEvidence,
    ConvertedGuest,
    CopyResult,
    GuestRef,
    GuestSummary,
    Source,
    SourceChange,
    TargetDisk,
)

log = logging.getLogger(__name__)

# What a job keeps when it is undone.
IDENTITY = ("job", "created")
LOGIN = "-ip"
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

NO_JOURNAL_SECONDS = 60.0  # a folder without a journal is older than this if its v2v was killed


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


@dataclass(frozen=True, slots=True)
class JobSummary:
    """One line of `v2v jobs`. `state` is running, finished, failed, cancelled or interrupted."""

    job_id: str
    name: str
    state: str
    started: float  # Unix time
    folder: Path
    steps: tuple[str, ...]  # finished ones
    error: str | None = None
    source_changes: tuple[SourceChange, ...] = ()  # what `undo` would take back


@dataclass(frozen=True, slots=True)
class _State:
    state: str
    error: str | None = None
    message: str | None = None
    hint: str | None = None


def start(
    job: Job,
    *,
    jobs: Path | None = None,
    emit: Emit = events.ignore,
    cancel: Cancel | None = None,
) -> Result:
    """Run a new job to its end. Its folder is made in `jobs`, or in the default place."""
    job = registry.anchored(job)
    parts = _parts(job)  # a wrong option is refused before a folder is made
    name = job.name or Path(job.guests[0]).name
    with Run.create(jobs or default_jobs_folder(), name, emit=emit, cancel=cancel) as run:
        run.journal.put("created", time.time())
        run.journal.put("job", job)
        try:
            return _execute(job, parts, run, resumed=False)
        except UsageError:  # it was asked for wrongly: there is nothing to go on with
            if not source_changes.pending(run):
                _remove(parts[1], run)
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
        return _execute(job, _parts(job), run, resumed=True, source_unchanged=source_unchanged)


def discard(job_id: str, *, jobs: Path | None = None, emit: Emit = events.ignore) -> None:
    """Remove what an unfinished job left at its target, then its folder. Finished guests stay.

    What it changed at its source is undone first, and nothing is removed if that fails; a VM that
    was shut down for a finished job stays off.
    """
    with Run.open((jobs or default_jobs_folder()) / job_id, emit=emit) as run:
        if "job" in run.journal:
            job = run.journal.get("job", Job)
            _undo_before_discard(job, run)
            _remove(registry.make_output(job), run)
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


def print_source(
    job: Job,
    *,
    jobs: Path | None = None,
    emit: Emit = events.ignore,
    cancel: Cancel | None = None,
) -> Source:
    """The source as its input describes it; nothing is started or kept."""
    with _scratch_run(jobs, emit, cancel) as run:
        return coordinator.preview_source(job, registry.make_input(job.input, job.guests), run)


def inspect_guest(
    job: Job,
    *,
    jobs: Path | None = None,
    emit: Emit = events.ignore,
    cancel: Cancel | None = None,
) -> Inspection:
    """What is this guest, and what would conversion change? Nothing is changed or kept."""
    input_ = registry.make_input(job.input, job.guests)
    with _scratch_run(jobs, emit, cancel) as run:
        source = coordinator.read_source(job, input_, run)
        try:
            with coordinator.open_disks(source, input_, run) as disks:
                overlays = [disk.overlay for disk in disks]
                found = converter_for(job.conversion).inspect(source, overlays, job.conversion, run)
                if not found.convertible:
                    raise _NotConvertible
        except _NotConvertible:
            pass
        return found


class _NotConvertible(GuestError):
    """Raised while the source is served: what is behind it may be that it cannot be read, which
    the input then tells instead."""

    def __init__(self) -> None:
        super().__init__("the guest does not convert", id="guest-not-convertible")


@contextmanager
def open_guest(
    job: Job,
    how: Exposure,
    *,
    jobs: Path | None = None,
    emit: Emit = events.ignore,
    cancel: Cancel | None = None,
) -> Iterator[OpenedGuest]:
    """Show a guest's disks to other programs until the block ends. Nothing is changed or kept."""
    input_ = registry.make_input(job.input, job.guests)
    with (
        _scratch_run(jobs, emit, cancel, name="open") as run,
        opening.opened(job, input_, how, run) as opened,
    ):
        yield opened


def _words_here(choice: ModuleChoice) -> dict[str, str]:
    """Without a password file that is not on this host: the input finds another way."""
    words = dict(choice.options)
    if LOGIN in words and not Path(words[LOGIN]).exists():
        del words[LOGIN]
    return words


def list_guests(
    *guests: str,
    input: str | None = None,
    input_options: dict[str, str] | None = None,
    jobs: Path | None = None,
    emit: Emit = events.ignore,
    cancel: Cancel | None = None,
) -> tuple[GuestSummary, ...]:
    """The VMs that a host has, in the order of their names; nothing is changed or kept.

    guests: patterns, as a shell has for file names, one of which a VM's name or id must match;
    all VMs without any. input: without it {"-ic": URI} of the options tells; without both it is
    this host's libvirt. The other arguments are as for `convert`.
    """
    words = dict(input_options or {})
    choice = ModuleChoice(input or registry.input_at(words.get("-ic", "")), words)
    input_ = registry.make_input(choice, guests or ("*",))
    with (
        _scratch_run(jobs, emit, cancel, name="list") as run,
        run.step("list", "Listing the VMs"),
    ):
        found = input_.list_guests(run)
    wanted = [one for one in found if not guests or _matches(one, guests)]
    return tuple(sorted(wanted, key=lambda one: (one.name, one.where, one.id)))


def _matches(guest: GuestSummary, patterns: Sequence[str]) -> bool:
    return any(one in (guest.name, guest.id) or fnmatchcase(guest.name, one) for one in patterns)


def list_jobs(jobs: Path | None = None) -> list[JobSummary]:
    """The jobs of a folder, oldest first."""
    folder = jobs or default_jobs_folder()
    found = sorted(folder.glob("*/journal")) if folder.is_dir() else []
    return sorted((_summary(path) for path in found), key=lambda job: job.started)


def convert(
    *guests: str | Path,
    input: str = "disk",
    output: str = "local",
    storage: str | Path | None = None,
    name: str | None = None,
    input_options: dict[str, str] | None = None,
    output_options: dict[str, str] | None = None,
    conversion: ConversionOptions | None = None,
    nic_maps: Sequence[NicMap] = (),
    storage_maps: Sequence[StorageMap] = (),
    boot_check: float | None = None,
    copy: CopyOptions | None = None,
    jobs: Path | None = None,
    emit: Emit = events.ignore,
    cancel: Cancel | None = None,
) -> Result:
    """Convert one VM.

    guests: its disks, its metadata file or its name, as the input takes them. storage: where to
    put it (-os). input_options and output_options: the module's words by flag, {"-of": "qcow2",
    "-oo compressed": ""}. nic_maps: where the source's networks go. storage_maps: where disks go
    that do not go to `storage`. boot_check: seconds allowed to boot, None for no check. copy: how
    the disks are copied.
    """
    words = dict(output_options or {})
    if storage is not None:
        words["-os"] = str(storage)
    job = Job(
        input=ModuleChoice(input, dict(input_options or {})),
        output=ModuleChoice(output, words),
        guests=tuple(str(guest) for guest in guests),
        name=name,
        nic_maps=tuple(nic_maps),
        storage_maps=tuple(storage_maps),
        conversion=conversion or ConversionOptions(),
        boot_check=boot_check,
        copy=copy or CopyOptions(),
    )
    return start(job, jobs=jobs, emit=emit, cancel=cancel)


def inspect(
    *guests: str | Path,
    input: str = "disk",
    input_options: dict[str, str] | None = None,
    conversion: ConversionOptions | None = None,
    jobs: Path | None = None,
    emit: Emit = events.ignore,
    cancel: Cancel | None = None,
) -> Inspection:
    """Look at one VM without changing anything; arguments as for `convert`."""
    job = Job(
        input=ModuleChoice(input, dict(input_options or {})),
        output=ModuleChoice("null"),
        guests=tuple(str(guest) for guest in guests),
        conversion=conversion or ConversionOptions(),
    )
    return inspect_guest(job, jobs=jobs, emit=emit, cancel=cancel)


@contextmanager
def open_disks(
    *guests: str | Path,
    input: str = "disk",
    input_options: dict[str, str] | None = None,
    writable: bool = False,
    socket_dir: str | Path | None = None,
    tcp: str | int | None = None,
    tls_certificates: str | Path | None = None,
    tls_psk_file: str | Path | None = None,
    insecure: bool = False,
    fuse: str | Path | None = None,
    jobs: Path | None = None,
    emit: Emit = events.ignore,
    cancel: Cancel | None = None,
) -> Iterator[OpenedGuest]:
    """Show one VM's disks to other programs while the `with` block lasts, and convert nothing.

    Each disk has an NBD address, and with `fuse`, a folder, a raw file too. writable: to
    throw-away overlays. tcp: [HOST:]PORT rather than Unix sockets. See docs/open.md; the other
    arguments are as for `convert`. The block is to be left in the thread that entered it.
    """
    job = Job(
        input=ModuleChoice(input, dict(input_options or {})),
        output=ModuleChoice("null"),
        guests=tuple(str(guest) for guest in guests),
    )
    how = opening.exposure(
        writable=writable,
        socket_dir=socket_dir,
        tcp=tcp,
        tls_certificates=tls_certificates,
        tls_psk_file=tls_psk_file,
        insecure=insecure,
        fuse=fuse,
    )
    with open_guest(job, how, jobs=jobs, emit=emit, cancel=cancel) as opened:
        yield opened


# One execution ------------------------------------------------------------------------------------


def _parts(job: Job) -> tuple[Any, Any, Any]:
    return (
        registry.make_input(job.input, job.guests),
        registry.make_output(job),
        converter_for(job.conversion),
    )


def _execute(
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
    run.journal.put("state", _State("running"))
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
            _end(run, job, began, _State("cancelled", "cancelled", "cancelled"))
            raise Cancelled from None
        except V2VError as exc:
            state = _State("failed", exc.id, exc.message, exc.hint)
            _end(run, job, began, state, kept=_kept(exc, input_, run, resumed=resumed))
            raise
        except Exception as exc:
            log.exception("a bug, or a failure nobody thought of")
            source_changes.warn_of_kept(run)
            _end(run, job, began, _State("failed", "unexpected", f"{type(exc).__name__}: {exc}"))
            raise
        page = _end(run, job, began, _State("finished"))
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


def _end(run: Run, job: Job, began: float, state: _State, *, kept: bool = True) -> Path:
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


def _remove(output: Any, run: Run) -> None:
    if "finalize" not in run.journal:
        _undo(output, run)
    shutil.rmtree(run.folder)


def _report(run: Run, job: Job, began: float, state: _State) -> report.Report:
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


@contextmanager
def _scratch_run(
    jobs: Path | None, emit: Emit, cancel: Cancel | None, *, name: str = "inspect"
) -> Iterator[Run]:
    """A job that leaves nothing, and takes with it what a killed one of its kind left."""
    scratch = (jobs or default_jobs_folder()) / ".scratch"
    for stale in scratch.glob("*"):
        if _is_stale(stale):
            _remove_scratch(stale)
    with Run.create(scratch, name, emit=emit, cancel=cancel) as run:
        run.reads_all = False
        try:
            yield run
        finally:
            shutil.rmtree(run.tmp, ignore_errors=True)
            _remove_scratch(run.folder)


def _is_stale(folder: Path) -> bool:
    """Whether nobody works in it any more. One that has no journal yet is given time for it."""
    path = folder / "journal"
    try:
        if path.exists():
            return not journal.is_locked(path)
        return time.time() - folder.stat().st_mtime > NO_JOURNAL_SECONDS
    except FileNotFoundError:
        return False  # another one has removed it


def _remove_scratch(folder: Path) -> None:
    """The journal goes last: what has one is found again, should we be killed on the way."""
    remove_stale_tmp(folder)
    with suppress(FileNotFoundError):  # maybe another one does it too
        for path in [path for path in folder.iterdir() if path.name != "journal"]:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _summary(path: Path) -> JobSummary:
    values = journal.latest(journal.read_entries(path)[0])
    job = values.get("job", {})
    guests = job.get("guests") or [path.parent.name]
    state = msgspec.convert(values.get("state", {"state": "interrupted"}), _State)
    name = state.state
    if name == "running" and not journal.is_locked(path):
        name = "interrupted"
    return JobSummary(
        job_id=path.parent.name,
        name=values.get("source", {}).get("name") or job.get("name") or Path(guests[0]).name,
        state=name,
        started=values.get("created", path.stat().st_ctime),
        folder=path.parent,
        steps=tuple(key for key in values if _is_step(key)),
        error=state.error,
        source_changes=source_changes.pending_in(values),
    )


def _is_step(key: str) -> bool:
    return key not in (*IDENTITY, "state") and not key.startswith(source_changes.KEY)
