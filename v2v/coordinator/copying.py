"""The copy of a job's disks: a part of it while the guest is converted, the rest after that.

Once the guest's free space is trimmed, a thread creates the target's disks and copies what still
comes from the source. What the conversion writes later is copied again, from the overlays. One
token stops both: whichever fails first ends the other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from typing import TypeVar

from v2v import events
from v2v.cancel import Cancel, raise_cause
from v2v.coordinator.parts import OpenDisk, Parts
from v2v.coordinator.targets import check_target
from v2v.coordinator.work import DiskWork, open_work
from v2v.copy.bandwidth import Bandwidth
from v2v.copy.engine import Shared
from v2v.copy.progress import Progress, Standing
from v2v.copy.sinks import Sink
from v2v.errors import Cancelled, GuestError, UsageError, V2VError
from v2v.job import Job
from v2v.output import (
    DATA,
    Output,
    forget_progress,
    is_copied,
    record_data,
)
from v2v.run import BANDWIDTH, Run
from v2v.types import CopyResult, Source, TargetDisk

T = TypeVar("T")


class Copying:
    """The copy of one job. `run` is the job's, with the token that stops copy and conversion."""

    def __init__(
        self, job: Job, source: Source, disks: Sequence[OpenDisk], output: Output, run: Run
    ) -> None:
        self.run = run.part(cancel=Cancel())
        self.refused = False  # what was refused leaves nothing at the target
        self._job = job
        self._source = source
        self._disks = disks
        self._output = output
        self._user = run.cancel
        self._parts = [Parts(index, disk, self.run) for index, disk in enumerate(disks)]
        self._converted = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._copies: tuple[CopyResult, ...] = ()

    def begin(self) -> None:
        """Copy in the background what the conversion will hardly write any more."""
        wanted = self._job.copy.overlap and self._output.can_rewrite
        if wanted and self._thread is None:
            self._thread = threading.Thread(target=self._in_background, name="copying")
            self._thread.start()

    def finish(self) -> tuple[CopyResult, ...]:
        """Copy what is left, now that the guest is converted. Raises what went wrong until now."""
        self._converted.set()
        if self._thread is None:
            return self._copy()
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._copies

    def stop(self) -> None:
        """Stop whatever goes on; returns when nothing writes to the target any more."""
        self.run.cancel.cancel()
        if self._thread is not None:
            self._thread.join()

    def cause(self, error: BaseException) -> BaseException:
        """Why all was stopped: a conversion is cancelled too when the copy fails."""
        if isinstance(error, Cancelled) and not self._user.cancelled:
            return self._error or error
        return error

    def _in_background(self) -> None:
        """All of the copy: the programs that it starts die with the thread that started them."""
        try:
            self._copy()
        except BaseException as exc:  # noqa: BLE001  handed to the thread that waits
            self._error = exc
            self.run.cancel.cancel()

    def _copy(self) -> tuple[CopyResult, ...]:
        targets = self._create_targets()
        with ExitStack() as stack:
            sinks = self._connect(targets, stack)
            shared = self._shared()
            works = [self._open(index, sinks, shared, stack) for index in self._numbers]
            if not self._converted.is_set():
                self._each(partial(self._copy_ahead, works))
                self._wait_for_guest()
            self._copies = tuple(self._each(partial(self._copy_rest, works)))
        return self._copies

    @property
    def _numbers(self) -> range:
        return range(len(self._disks))

    def _create_targets(self) -> tuple[TargetDisk, ...]:
        sizes = [disk.source.size for disk in self._disks]

        def action() -> tuple[TargetDisk, ...]:
            for parts in self._parts:
                self._look(parts)
            data = [parts.data(self._output.data_grain) for parts in self._parts]
            self._output.check_sizes(sizes, data, self.run)
            record_data(data, self.run)
            forget_progress(self.run)
            self._output.discard((), self.run)  # of a try that came to nothing
            return self._output.create_disks(self._source, sizes, self.run)

        title = "Creating the target disks"
        return self.run.once("disks", title, tuple[TargetDisk, ...], action)

    def _look(self, parts: Parts) -> None:
        if not self._converted.is_set():
            parts.peek()
        elif self._job.conversion.convert:
            parts.look()

    def _connect(self, targets: Sequence[TargetDisk], stack: ExitStack) -> Sequence[Sink]:
        if all(is_copied(self.run, index) for index in self._numbers):
            return ()
        return stack.enter_context(self._output.connect(targets, self.run))

    def _shared(self) -> Shared:
        def tell(standing: Standing) -> None:
            self.run.emit(events.CopyProgress, **asdict(standing))

        options = self._job.copy
        return Shared(
            options,
            cancel=self.run.cancel,
            progress=Progress(tell),
            bandwidth=Bandwidth(options.bandwidth, path=self.run.folder / BANDWIDTH),
            gently=lambda: not self._converted.is_set(),  # the appliance reads the source too
        )

    def _open(
        self, index: int, sinks: Sequence[Sink], shared: Shared, stack: ExitStack
    ) -> DiskWork | None:
        """What copies disk `index`; None when an earlier run has done it."""
        disk, parts = self._disks[index], self._parts[index]
        if self._output.existing and sinks:
            was_blank = not self._output.overwrites
            check_target(index, disk, parts, sinks[index], self.run, was_blank=was_blank)
        if is_copied(self.run, index):
            return None
        work = open_work(index, disk, parts, sinks[index], shared, self.run)
        return stack.enter_context(work)

    def _copy_ahead(self, works: Sequence[DiskWork | None], index: int) -> None:
        work = works[index]
        if work is None or self._converted.is_set():
            return
        with self.run.step(f"ahead:{index}", f"Copying disk {index + 1}/{len(works)} meanwhile"):
            self._look(work.parts)
            work.from_source()

    def _wait_for_guest(self) -> None:
        with self.run.cancel.calling(self._converted.set):
            self._converted.wait()
        self.run.cancel.check()

    def _copy_rest(self, works: Sequence[DiskWork | None], index: int) -> CopyResult:
        def action() -> CopyResult:
            work = works[index]
            assert work is not None  # noqa: S101  then it would be in the journal
            self._look(work.parts)
            work.from_source()
            work.from_overlay()
            return work.finish()

        title = f"Copying disk {index + 1}/{len(works)}"
        return self.run.once(f"copied:{index}", title, CopyResult, action)

    def _each(self, action: Callable[[int], T]) -> list[T]:
        stop, parallel = self.run.cancel, self._job.copy.parallel
        return all_done(action, self._numbers, stop, parallel=parallel)


@contextmanager
def copying(
    job: Job, source: Source, disks: Sequence[OpenDisk], output: Output, run: Run
) -> Iterator[Copying]:
    """A copy that is stopped when the block fails, before its error is raised.

    A guest that is refused leaves nothing at the target. What else was copied is kept for `resume`.
    """
    copy = Copying(job, source, disks, output, run)
    with run.cancel.calling(copy.run.cancel.cancel):
        try:
            yield copy
        except BaseException as exc:
            copy.stop()
            cause = copy.cause(exc)
            if copy.refused or isinstance(cause, GuestError | UsageError):
                discard_target(output, run)
            if cause is exc:
                raise
            raise cause from None


def discard_target(output: Output, run: Run) -> None:
    """Leave nothing of the job at the target; the journal knows of nothing there any more."""
    disks = run.journal.get("disks", tuple[TargetDisk, ...]) if "disks" in run.journal else ()
    copied = [f"copied:{index}" for index in range(len(disks))]
    try:
        forget_progress(run)
        run.journal.drop(["disks", DATA, *copied])
        output.discard(disks, run.part(cancel=Cancel()))  # what failed has stopped all else
    except (OSError, V2VError) as exc:  # the refusal is what the user must hear of
        run.warn(
            f"what was made at the target could not be removed: {exc}",
            id="target-leftover",
            hint=f"`v2v jobs discard {run.job_id}` tries it again",
        )


def all_done(
    action: Callable[[int], T], numbers: Sequence[int], stop: Cancel, *, parallel: int
) -> list[T]:
    """What `action` gives for each number, `parallel` at a time. The first error stops the rest."""
    with ThreadPoolExecutor(parallel, thread_name_prefix="copy") as pool:
        tasks = [pool.submit(action, number) for number in numbers]
        try:
            first = wait(tasks, return_when=FIRST_EXCEPTION).done
        finally:
            if not all(task.done() for task in tasks):
                stop.cancel()
                pool.shutdown(wait=False, cancel_futures=True)
    tasks_by_end = sorted(tasks, key=lambda task: task not in first)  # the cause comes first
    raise_cause(e for task in tasks_by_end if not task.cancelled() and (e := task.exception()))
    return [task.result() for task in tasks]
