"""One VM from top to bottom: read, convert, copy, finish, prove.

Every durable step goes through `run.once`, so that a job that died is resumed by running the same
lines again. Servers and connections live on `with` blocks and are simply entered again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from v2v import events, network, overlay
from v2v.boot_check import boot_check
from v2v.cancel import Cancel
from v2v.converter import Converter
from v2v.copy.engine import copy_disk, measure
from v2v.copy.sinks import Sink
from v2v.endpoint import Endpoint
from v2v.errors import BootCheckError, Cancelled, HostError, JobError, UsageError
from v2v.hardware import target_hardware
from v2v.input import Input
from v2v.job import Job
from v2v.output import Output, is_copied
from v2v.run import Run
from v2v.types import (
    BootEvidence,
    ConvertedGuest,
    CopyResult,
    GiB,
    GuestRef,
    MiB,
    Source,
    TargetDisk,
)

T = TypeVar("T")

OVERLAY_SPACE = 1 * GiB  # what a conversion may write before it is copied; the field's own minimum


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a finished migration leaves."""

    source: Source
    guest: ConvertedGuest
    copies: tuple[CopyResult, ...]
    ref: GuestRef
    boot: BootEvidence | None


def migrate(job: Job, input_: Input, output: Output, converter: Converter, run: Run) -> Outcome:
    """Move one VM. Raises V2VError; what was finished stays in the journal for `resume`."""
    source = read_source(job, input_, run)
    check_before(job, source, output, run)
    if "copied" not in run.journal:
        with open_disks(source, input_, run) as disks:
            check_space(disks, output, run)
            guest = convert(job, source, disks, converter, run)
            output.check_guest(guest, run)
            targets = create_targets(source, disks, output, run)
            copy_disks(disks, targets, output, run, parallel=job.copy.parallel)
    guest = run.journal.get("guest", ConvertedGuest)
    targets = run.journal.get("disks", tuple[TargetDisk, ...])
    ref = finalize(source, guest, targets, output, run)
    overlay.discard_overlays(run)
    boot = prove(job, source, guest, ref, converter, run)
    return Outcome(source, guest, run.journal.get("copied", tuple[CopyResult, ...]), ref, boot)


def read_source(job: Job, input_: Input, run: Run) -> Source:
    """Describe the VM, renamed and with its NICs mapped as the user asked."""

    def read() -> Source:
        source = input_.read_source(run)
        if source.nics is not None:
            _warn_of_unused_maps(source, job, run)
        named = replace(source, name=job.name or source.name)
        return replace(named, nics=network.target_nics(named, job.nic_maps))

    resumed = "source" in run.journal
    source = run.once("source", "Reading the source", Source, read)
    if not resumed or "copied" in run.journal or (current := read()) == source:
        return source
    if "guest" in run.journal:
        raise JobError(
            f"{source.name}: the source changed since job {run.job_id} was started",
            id="source-changed",
            hint=f"its copy is of no use: `v2v jobs discard {run.job_id}`, then start again",
        )
    run.journal.put("source", current)  # repaired, perhaps; nothing was made of it yet
    return current


def _warn_of_unused_maps(source: Source, job: Job, run: Run) -> None:
    for one in network.unused_maps(source, job.nic_maps):
        run.warn(
            f"{source.name} has no network card on {one.kind} {one.source}: that map does nothing",
            id="map-unused",
            hint="--print-source shows the networks of the source",
        )


def check_before(job: Job, source: Source, output: Output, run: Run) -> None:
    """Everything that can be refused cheaply is refused here."""
    if job.boot_check and not output.bootable:
        raise UsageError(
            f"-o {output.mode} leaves nothing that --boot-check could boot",
            id="boot-check-impossible",
            hint="leave out --boot-check, or choose -o local or -o qemu",
        )
    if "finalize" not in run.journal:
        output.check_source(source, run)
    free = shutil.disk_usage(run.folder).free
    if job.conversion.convert and "guest" not in run.journal and free < OVERLAY_SPACE:
        raise HostError(
            f"{run.folder}: {free // MiB} MiB free, a conversion needs {OVERLAY_SPACE // MiB} MiB",
            id="no-space-jobs",
            hint="make room, or choose another place with --jobs-dir or $V2V_JOBS",
        )


@contextmanager
def open_disks(source: Source, input_: Input, run: Run) -> Iterator[Sequence[Endpoint]]:
    """Serve the source read-only and put a writable overlay over each disk."""
    if "guest" in run.journal:
        overlay.check_overlays(len(source.disks), run)
    else:
        overlay.discard_overlays(run)  # of a conversion that did not end
    with ExitStack() as stack:
        with run.step("open", "Opening the source"):
            served = stack.enter_context(input_.serve(source, run))
            disks = [
                stack.enter_context(overlay.open_overlay(endpoint, index, run))
                for index, endpoint in enumerate(served)
            ]
        yield disks


def check_space(disks: Sequence[Endpoint], output: Output, run: Run) -> None:
    """Refuse what cannot fit even after trimming."""
    if "disks" not in run.journal:
        output.check_sizes([disk.size for disk in disks], [0] * len(disks), run)


def convert(
    job: Job, source: Source, disks: Sequence[Endpoint], converter: Converter, run: Run
) -> ConvertedGuest:
    def action() -> ConvertedGuest:
        guest = converter.convert(source, disks, job.conversion, run)
        for index, disk in enumerate(disks):
            overlay.settle(disk, index, run)
        return guest

    title = "Converting the guest" if job.conversion.convert else "Taking the guest as it is"
    guest = run.once("guest", title, ConvertedGuest, action)
    for finding in guest.findings:
        if finding.severity == "warning":
            run.warn(finding.text, id=finding.id, hint=finding.hint)
    return guest


def create_targets(
    source: Source, disks: Sequence[Endpoint], output: Output, run: Run
) -> tuple[TargetDisk, ...]:
    sizes = [disk.size for disk in disks]

    def action() -> tuple[TargetDisk, ...]:
        output.check_sizes(sizes, [measure(disk, run.cancel) for disk in disks], run)
        return output.create_disks(source, sizes, run)

    return run.once("disks", "Creating the target disks", tuple[TargetDisk, ...], action)


def copy_disks(
    disks: Sequence[Endpoint],
    targets: Sequence[TargetDisk],
    output: Output,
    run: Run,
    *,
    parallel: int,
) -> None:
    """Copy every disk that is not copied yet; each is journaled when it is safe on the target."""
    stop = Cancel()  # by the user, or because a disk failed: then the others need not go on
    with ExitStack() as stack:
        sinks = _connect(targets, output, run, stack)

        def copy(index: int) -> CopyResult:
            progress = partial(_tell_progress, run, index)
            return run.once(
                f"copied:{index}",
                f"Copying disk {index + 1}/{len(disks)}",
                CopyResult,
                lambda: copy_disk(
                    index, disks[index], sinks[index], cancel=stop, progress=progress
                ),
            )

        stack.enter_context(run.cancel.calling(stop.cancel))
        run.journal.put("copied", all_done(copy, range(len(disks)), stop, parallel=parallel))


def _connect(
    targets: Sequence[TargetDisk], output: Output, run: Run, stack: ExitStack
) -> Sequence[Sink]:
    if all(is_copied(run, index) for index in range(len(targets))):
        return ()
    return stack.enter_context(output.connect(targets, run))


def all_done(
    action: Callable[[int], T], numbers: Sequence[int], stop: Cancel, *, parallel: int
) -> list[T]:
    """What `action` gives for each number, `parallel` at a time. The first error stops the rest."""
    with ThreadPoolExecutor(parallel, thread_name_prefix="copy") as pool:
        tasks = [pool.submit(action, number) for number in numbers]
        try:
            wait(tasks, return_when=FIRST_EXCEPTION)
        finally:
            if not all(task.done() for task in tasks):
                stop.cancel()
                pool.shutdown(wait=False, cancel_futures=True)
    errors = [error for task in tasks if not task.cancelled() and (error := task.exception())]
    for error in sorted(errors, key=lambda error: isinstance(error, Cancelled)):
        raise error
    return [task.result() for task in tasks]


def _tell_progress(run: Run, disk: int, done: int, total: int) -> None:
    run.emit(events.CopyProgress, disk=disk, done=done, total=total)


def finalize(
    source: Source,
    guest: ConvertedGuest,
    targets: Sequence[TargetDisk],
    output: Output,
    run: Run,
) -> GuestRef:
    return run.once(
        "finalize",
        "Creating the guest's metadata",
        GuestRef,
        lambda: output.finalize(source, guest, targets, run),
    )


def prove(
    job: Job,
    source: Source,
    guest: ConvertedGuest,
    ref: GuestRef,
    converter: Converter,
    run: Run,
) -> BootEvidence | None:
    """Boot a throw-away copy of the result, if asked. A guest that fails stays where it is."""
    if not job.boot_check:
        return None
    if "boot-check" in run.journal:
        return run.journal.get("boot-check", BootEvidence)

    def instrument(copies: Sequence[Endpoint]) -> None:
        converter.add_serial_console(guest, copies, job.conversion, run)

    with run.step("boot-check", "Checking that the guest boots"):
        evidence = boot_check(
            target_hardware(source, guest),
            guest,
            ref.disks,
            seconds=job.boot_check,
            instrument=instrument,
            run=run,
        )
    if not evidence.passed:
        run.journal.put("boot-check-failed", evidence)
        raise BootCheckError(
            f"{ref.name} did not boot: it got as far as {evidence.reached!r}"
            + (f" ({evidence.trouble})" if evidence.trouble else ""),
            id="boot-check-failed",
            hint=f"the copy is kept; see the console in {run.folder}",
        )
    run.journal.put("boot-check", evidence)
    return evidence
