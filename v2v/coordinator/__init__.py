"""One VM from top to bottom: read, convert, copy, finish, prove.

Every durable step goes through `run.once`, so that a job that died is resumed by running the same
lines again. Servers and connections live on `with` blocks and are simply entered again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from v2v import events, network, overlay, source_changes, storage
from v2v.boot_check import boot_check
from v2v.converter import Converter
from v2v.coordinator import restart
from v2v.coordinator.copying import Copying, copying
from v2v.coordinator.parts import OpenDisk
from v2v.endpoint import Endpoint
from v2v.errors import BootCheckError, Cancelled, HostError, SourceError, UsageError, V2VError
from v2v.hardware import target_hardware
from v2v.input import Input
from v2v.job import Job
from v2v.output import Output, forget_progress
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

OVERLAY_SPACE = 1 * GiB  # what a conversion may write before it is copied; the field's own minimum


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a finished migration leaves."""

    source: Source
    guest: ConvertedGuest
    copies: tuple[CopyResult, ...]
    ref: GuestRef
    boot: BootEvidence | None


def migrate(
    job: Job,
    input_: Input,
    output: Output,
    converter: Converter,
    run: Run,
    *,
    source_unchanged: bool = False,
) -> Outcome:
    """Move one VM. Raises V2VError; what was finished stays in the journal for `resume`.

    source_unchanged: when it is resumed, disks that cannot tell whether they changed have not.
    """
    prepare_source(job, input_, output, run)
    source = read_source(job, input_, run, source_unchanged=source_unchanged)
    check_before(job, source, output, run)
    if "copied" not in run.journal:
        with open_disks(source, input_, run) as disks:
            check_space(disks, output, run)
            with copying(job, source, disks, output, run) as copy:
                guest = convert(job, source, disks, converter, copy)
                check_guest(guest, output, copy)
                copies = copy.finish()
        check_unchanged(source, input_, run)
        run.journal.put("copied", copies)
    guest = run.journal.get("guest", ConvertedGuest)
    targets = run.journal.get("disks", tuple[TargetDisk, ...])
    with source_let_go(input_, run):
        ref = finalize(source, guest, targets, output, run)
    overlay.discard_overlays(run)
    forget_progress(run)
    boot = prove(job, source, guest, ref, converter, run)
    source_changes.tell_of_lasting(run)
    return Outcome(source, guest, run.journal.get("copied", tuple[CopyResult, ...]), ref, boot)


def read_source(job: Job, input_: Input, run: Run, *, source_unchanged: bool = False) -> Source:
    """Describe the VM, renamed and with its NICs mapped as the user asked.

    A job that is resumed looks again: what changed since, or may have, is converted and copied
    again.
    """

    def read() -> Source:
        return _as_asked(input_.read_source(run), job, run)

    resumed = "source" in run.journal
    source = run.once("source", "Reading the source", Source, read)
    if not resumed or "copied" in run.journal:
        return source
    current = read()
    doubtful = [] if source_unchanged else restart.doubtful_disks(source, current, run)
    if current == source and not doubtful:
        return source
    restart.start_again(source, current, doubtful, run)
    run.journal.put("source", current)
    return current


def preview_source(job: Job, input_: Input, run: Run) -> Source:
    """The same of a VM that may run, and that nothing was changed of yet."""
    return _as_asked(input_.preview_source(run), job, run)


def _as_asked(source: Source, job: Job, run: Run) -> Source:
    """The VM by its new name, and with its NICs where they go."""
    _warn_of_unused_maps(source, job, run)
    named = replace(source, name=job.name or source.name)
    nics = network.target_nics(named, job.nic_maps)
    return replace(named, nics=nics, disks=storage.target_disks(named, job.storage_maps))


def prepare_source(job: Job, input_: Input, output: Output, run: Run) -> None:
    """Change the source as the user asked, unless all is copied. No VM is shut down for a job that
    is refused a moment later."""
    if not input_.changes_source or "copied" in run.journal:
        return
    if "source" not in run.journal:
        quiet = run.part(emit=events.ignore)
        check_before(job, preview_source(job, input_, quiet), output, quiet)
    input_.prepare(run)


def _warn_of_unused_maps(source: Source, job: Job, run: Run) -> None:
    for place in storage.unused_maps(source, job.storage_maps):
        run.warn(
            f"{source.name} has no disk {place.source}, nor one on a storage of that name: that "
            "map does nothing",
            id="map-unused",
            hint="--print-source shows the disks of the source",
        )
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
    if job.copy.verify and not output.can_verify:
        raise UsageError(
            f"-o {output.mode} keeps nothing that --verify could read back",
            id="verify-impossible",
            hint="leave out --verify, or choose another output",
        )
    if job.storage_maps and not output.per_disk_storage:
        raise UsageError(
            f"-o {output.mode} does not take --storage",
            id="option-unknown",
            hint=f"leave out --storage; `v2v modes {output.mode}` tells how places are named",
        )
    _check_nic_maps(job, output)
    if "finalize" not in run.journal:
        output.check_source(source, run)
    free = shutil.disk_usage(run.folder).free
    if job.conversion.convert and "guest" not in run.journal and free < OVERLAY_SPACE:
        raise HostError(
            f"{run.folder}: {free // MiB} MiB free, a conversion needs {OVERLAY_SPACE // MiB} MiB",
            id="no-space-jobs",
            hint="make room, or choose another place with --jobs-dir or $V2V_JOBS",
        )


def _check_nic_maps(job: Job, output: Output) -> None:
    for one in job.nic_maps:
        if one.kind not in output.nic_maps:
            raise UsageError(
                f"-o {output.mode} does not take --{one.kind}",
                id="option-unknown",
                hint=f"leave out --{one.kind}; docs/output-{output.mode}.md tells what becomes of "
                "network cards",
            )


@contextmanager
def open_disks(source: Source, input_: Input, run: Run) -> Iterator[Sequence[OpenDisk]]:
    """Serve the source read-only and put a writable overlay over each disk."""
    if "guest" in run.journal:
        overlay.check_overlays(len(source.disks), run)
    else:
        overlay.discard_overlays(run)  # of a conversion that did not end
    with ExitStack() as stack:
        with run.step("open", "Opening the source"):
            served = stack.enter_context(input_.serve(source, run))
            disks = [
                OpenDisk(one, stack.enter_context(overlay.open_overlay(one, index, run)))
                for index, one in enumerate(served)
            ]
        yield disks


def check_space(disks: Sequence[OpenDisk], output: Output, run: Run) -> None:
    """Refuse what cannot fit even after trimming."""
    if "disks" not in run.journal:
        output.check_sizes([disk.source.size for disk in disks], [0] * len(disks), run)


def convert(
    job: Job, source: Source, disks: Sequence[OpenDisk], converter: Converter, copy: Copying
) -> ConvertedGuest:
    """Convert the guest in its overlays, and copy meanwhile what it will not write any more."""
    run = copy.run
    overlays = [disk.overlay for disk in disks]

    def action() -> ConvertedGuest:
        guest = converter.convert(source, overlays, job.conversion, run, copy.begin)
        for index, one in enumerate(overlays):
            overlay.settle(one, index, run)
        return guest

    title = "Converting the guest" if job.conversion.convert else "Taking the guest as it is"
    guest = run.once("guest", title, ConvertedGuest, action)
    for finding in guest.findings:
        if finding.severity == "warning":
            run.warn(finding.text, id=finding.id, hint=finding.hint)
    return guest


def check_guest(guest: ConvertedGuest, output: Output, copy: Copying) -> None:
    """Whether the target can run it is known only now; a part of it may be there already."""
    try:
        output.check_guest(guest, copy.run)
    except V2VError:
        copy.refused = True
        raise


def check_unchanged(source: Source, input_: Input, run: Run) -> None:
    """A VM that ran while it was copied is torn: parts of it are older than others.

    A disk that cannot tell whether it changed is taken to be as it was.
    """
    with run.step("check-source", "Checking that the source did not change"):
        try:
            current = input_.read_source(run.part(emit=events.ignore))
        except UsageError as exc:  # these words were right before: such as a snapshot's name
            raise _changed(f"{source.name} changed while being copied: {exc.message}", run) from exc
    changed = restart.changed_disks(source, current)
    if changed:
        raise _changed(f"{restart.names_of(changed, source)} changed while being copied", run)


def _changed(what: str, run: Run) -> SourceError:
    return SourceError(
        what,
        id="source-changed-while-copied",
        hint="shut the VM down, or use a snapshot of it; "
        f"then `v2v resume {run.job_id}` copies again what changed",
    )


@contextmanager
def source_let_go(input_: Input, run: Run) -> Iterator[None]:
    """Afterwards, whether the block fails or not: nothing of the source is needed any more.

    Not before it: to delete a snapshot may take hours, and who cancels that would lose the copy.
    """
    try:
        yield
    except Cancelled:  # all changes are taken back then, by another token
        raise
    except V2VError:
        source_changes.let_go(run, input_.undo)
        raise
    source_changes.let_go(run, input_.undo)


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
