"""Copying one disk image to wherever it is to be, and its checksum, without any VM around it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from v2v import events, registry
from v2v.cancel import Cancel
from v2v.copy.bandwidth import Bandwidth
from v2v.copy.digests import Digests
from v2v.copy.engine import DiskCopy, Shared, copy_disk, measure
from v2v.copy.kept import check_kept
from v2v.copy.progress import Progress, Standing
from v2v.copy.sinks import NullSink, Sink
from v2v.endpoint import Endpoint
from v2v.errors import Cancelled, CopyError, JobError, SourceError, TargetError
from v2v.events import Emit
from v2v.extents import ExtentMap
from v2v.image_copy import state as copy_state
from v2v.image_copy import targets as image_targets
from v2v.image_copy.source import anchored_source, input_words, open_source
from v2v.image_copy.state import Request, State
from v2v.image_copy.targets import Opened, Target
from v2v.input import tells_changes
from v2v.job import CopyOptions
from v2v.logs import LogFile, logged_to
from v2v.nbd_client import ExportReader
from v2v.run import BANDWIDTH, Run
from v2v.types import Allocation, CopyResult, DiskFormat, Source

LOG_LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@dataclass(frozen=True, slots=True)
class CopiedImage:
    """A finished copy. `copy` tells of the bytes, `rate` is bytes of the disk per second."""

    source: str
    source_format: DiskFormat
    target: str
    format: DiskFormat
    copy: CopyResult
    rate: float


def copy_image(
    source: str | Path,
    target: str | Path,
    *,
    format: str | None = None,
    compressed: bool | None = None,
    allocation: str | None = None,
    input_options: Mapping[str, str] | None = None,
    options: CopyOptions | None = None,
    force: bool = False,
    resume: bool = False,
    jobs: Path | None = None,
    emit: Emit = events.ignore,
    cancel: Cancel | None = None,
) -> CopiedImage:
    """Copy one disk.

    source: an image file of any format, a block device, or an NBD or web address. target: a file
    (raw, or `format` qcow2), a block device, an NBD address, or "null:". allocation: sparse or
    preallocated. input_options: {"-if": "raw"}, as for convert with the input "disk".

    force: replace what is there, or begin an unfinished copy again. resume: go on with an
    unfinished copy of this source to this target, if there is one; what is unfinished is kept in
    `jobs`.
    """
    copy = options or CopyOptions()
    request = Request(
        source=anchored_source(source),
        target=image_targets.anchored(str(target)),
        input=input_words(input_options),
        format=_format(format),
        compressed=compressed or None,
        allocation=copy_state.choice("-oa", allocation, Allocation),
        verify=True if copy.verify else None,
        force=force,
    )
    registry.check_no_password([request.source, request.target])
    with (
        copy_state.opened(request, jobs, emit, cancel) as state,
        logged_to(LogFile(state.run.folder / "log" / "v2v.log"), LOG_LINE),
    ):
        return _Copier(request, copy, state, jobs).copy(resume=resume)


def checksum(
    image: str | Path,
    *,
    input_options: Mapping[str, str] | None = None,
    options: CopyOptions | None = None,
    jobs: Path | None = None,
    emit: Emit = events.ignore,
    cancel: Cancel | None = None,
) -> str:
    """The checksum of the disk in an image, whatever the image's format: see docs/checksum.md."""
    copy = replace(options or CopyOptions(), verify=0.0)
    request = Request(
        source=anchored_source(image), target=image_targets.NULL, input=input_words(input_options)
    )
    registry.check_no_password([request.source])
    with (
        copy_state.scratch(jobs, emit, cancel) as run,
        open_source(request, run) as (_, endpoint),
        run.step("copied:0", "Reading the disk"),
        ExitStack() as stack,
    ):
        digests = Digests(None, endpoint.size)
        stack.callback(digests.close)
        copy_disk(0, endpoint, NullSink(size=endpoint.size), _shared(copy, run), digests=digests)
        return digests.root()


# One copy -----------------------------------------------------------------------------------------


class _Copier:
    """One run of one copy: a new one, or going on with what is kept."""

    def __init__(
        self, request: Request, options: CopyOptions, state: State, jobs: Path | None
    ) -> None:
        self._request = request
        self._options = options
        self._state = state
        self._run = state.run
        self._jobs = jobs

    def copy(self, *, resume: bool) -> CopiedImage:
        self._settle(resume=resume)
        try:
            result = self._state.result or self._copied()
            target = self._target()
            target.finish(self._run, result.size, force=self._request.force)
        except BaseException as exc:
            self._keep_or_undo(exc)
            raise
        source = self._state.source()
        self._state.forget()
        return CopiedImage(
            source=self._request.source,
            source_format=source.disks[0].format,
            target=target.shown,
            format=target.shape.format,
            copy=result,
            rate=(result.size - result.resumed) / max(result.seconds, 0.001),
        )

    def _settle(self, *, resume: bool) -> None:
        """What was kept is resumed or begun again, as the user says; never silently."""
        state = self._state
        if state.begun and ((self._request.force and not resume) or not self._is_worth_keeping()):
            self._begin_again()
        elif state.begun and resume:
            self._request = copy_state.merged(self._request, self._kept_request())
            if self._request.verify and not self._options.verify:
                self._options = replace(self._options, verify=1.0)
        elif state.begun:
            raise JobError(
                f"an earlier copy of {self._request.source} to {self._request.target} "
                "has not ended",
                id="copy-unfinished",
                hint=f"go on with it: `{self._command('--resume')}`; "
                f"or begin again: `{self._command('--force')}`",
            )
        self._request = self._request.settled()

    def _kept_request(self) -> Request:
        try:
            return self._state.request()
        except JobError as exc:
            exc.hint = (
                f"was it begun by another version of v2v? Begin again: `{self._command('--force')}`"
            )
            raise

    def _copied(self) -> CopyResult:
        with open_source(self._request, self._run) as (source, endpoint):
            self._check_same(source, endpoint)
            target = self._target()
            target.check(source, force=self._request.force, run=self._run)
            result = self._copy(source, endpoint, target)
        self._run.journal.put("result", result)
        return result

    def _check_same(self, source: Source, endpoint: Endpoint) -> None:
        """A source that changed, or a target that lost its part, is copied from the beginning."""
        state, target = self._state, self._target()
        if not state.begun:
            return
        if (source, endpoint.size) != (state.source(), state.size()):
            self._run.warn(
                f"{self._request.source} changed since its copy was begun: it is copied anew",
                id="source-changed",
            )
        elif not target.is_there(endpoint.size):
            self._run.warn(
                f"what had been copied to {target.shown} is gone: it is copied anew",
                id="target-lost",
            )
        else:
            self._warn_of_doubt(source)
            return
        self._begin_again()
        if target.marked:  # what it holds is ours: no stranger's data is overwritten
            self._request = replace(self._request, force=True)

    def _warn_of_doubt(self, source: Source) -> None:
        """--resume is the user's word that the source is as it was: nothing else tells."""
        if self._state.ledger and not tells_changes(source.disks[0]):
            self._run.warn(
                f"{self._request.source} cannot tell whether it changed since its copy was begun: "
                "it is taken to be as it was",
                id="source-unverifiable",
                hint=f"if somebody wrote to it, begin again: `{self._command('--force')}`",
            )

    def _copy(self, source: Source, endpoint: Endpoint, target: Target) -> CopyResult:
        extents = measure(endpoint, self._run.cancel, stall=self._options.stall_timeout)
        disk = Opened(
            size=endpoint.size,
            used=extents.data,
            resumed=self._state.begun,
            force=self._request.force,
            options=self._options,
        )
        with ExitStack() as stack:
            sink = stack.enter_context(target.open(disk, self._run))
            if self._state.begun:
                self._check_kept(endpoint, extents, sink, target)
            else:
                self._state.begin(self._request, source, endpoint.size)
            copy = DiskCopy(
                0,
                endpoint.size,
                sink,
                _shared(self._options, self._run),
                ledger=self._state.ledger if target.kept else None,
                digests=self._digests(endpoint.size, stack),
            )
            with self._run.step("copied:0", "Copying the disk"):
                copy.copy(endpoint, extents)
                return copy.finish()

    def _check_kept(
        self, endpoint: Endpoint, extents: ExtentMap, sink: Sink, target: Target
    ) -> None:
        """Refuse a target that does not hold what was written to it."""
        with ExportReader(endpoint, self._request.source) as reader:
            at = check_kept(self._state.ledger, extents, reader.read, sink)
        if at is not None:
            raise TargetError(
                f"{target.shown} does not hold what was copied to it: byte {at} and those after "
                "it differ from the source",
                id="target-changed",
                hint=f"is it the same disk as before? To begin again: `{self._command('--force')}`",
            )

    def _digests(self, size: int, stack: ExitStack) -> Digests | None:
        if not self._request.verify:
            return None
        digests = Digests(self._state.digests, size)
        stack.callback(digests.close)
        if not digests.continued:  # what it should be compared with is lost
            self._state.ledger.clear()
        return digests

    def _target(self) -> Target:
        """Of the pair of source and target: kind and place do not depend on the options."""
        request = self._request.settled()
        return image_targets.find(request.target, request.shape(), self._run.job_id)

    def _is_worth_keeping(self) -> bool:
        """Whether there is something that --resume would save, or that cannot be undone."""
        state = self._state
        return self._target().marked or bool(state.ledger) or state.result is not None

    def _begin_again(self) -> None:
        self._target().discard()
        self._state.forget()

    def _keep_or_undo(self, exc: BaseException) -> None:
        """Tell how to go on; or leave nothing, where there is nothing to go on with."""
        if not self._state.begun:
            with suppress(OSError):  # then `open` could not make it either
                self._target().discard()
        elif not self._is_worth_keeping():
            self._begin_again()
            if isinstance(exc, CopyError):
                exc.hint = "when that is repaired, copy it again: nothing of it is kept"
        elif isinstance(exc, Cancelled):
            exc.hint = f"go on with it: `{self._command('--resume')}`"
        elif isinstance(exc, CopyError) and exc.id == "verify-mismatch":
            exc.hint = f"test the target's hardware; copy it anew: `{self._command('--force')}`"
        elif isinstance(exc, CopyError | SourceError):
            first = f"{exc.hint}; " if exc.hint and isinstance(exc, SourceError) else ""
            exc.hint = f"{first}when that is repaired, go on with `{self._command('--resume')}`"

    def _command(self, flag: str) -> str:
        return copy_state.command(self._request, flag, self._jobs)


# What a copy has in common with others ------------------------------------------------------------


def _format(word: str | None) -> DiskFormat | None:
    known = copy_state.choice("-of", word, image_targets.FileFormat)
    return DiskFormat(known) if known else None


def _shared(options: CopyOptions, run: Run) -> Shared:
    def tell(standing: Standing) -> None:
        run.emit(events.CopyProgress, **asdict(standing))

    bandwidth = Bandwidth(options.bandwidth, path=run.folder / BANDWIDTH)
    return Shared(options, cancel=run.cancel, progress=Progress(tell), bandwidth=bandwidth)
