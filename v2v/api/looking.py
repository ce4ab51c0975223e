"""Look at VMs and at what is in them; nothing is changed or kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from conversion import converter_for
from v2v import coordinator, events, opening, registry
from v2v.api.scratch import scratch_run
from v2v.cancel import Cancel
from v2v.converter import Inspection
from v2v.errors import GuestError
from v2v.events import Emit
from v2v.job import Job, ModuleChoice
from v2v.opening import Exposure, OpenedGuest
from v2v.types import GuestSummary, Source


def print_source(
    job: Job,
    *,
    jobs: Path | None = None,
    emit: Emit = events.ignore,
    cancel: Cancel | None = None,
) -> Source:
    """The source as its input describes it; nothing is started or kept."""
    with scratch_run(jobs, emit, cancel) as run:
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
    with scratch_run(jobs, emit, cancel) as run:
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
        scratch_run(jobs, emit, cancel, name="open") as run,
        opening.opened(job, input_, how, run) as opened,
    ):
        yield opened


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
        scratch_run(jobs, emit, cancel, name="list") as run,
        run.step("list", "Listing the VMs"),
    ):
        found = input_.list_guests(run)
    wanted = [one for one in found if not guests or _matches(one, guests)]
    return tuple(sorted(wanted, key=lambda one: (one.name, one.where, one.id)))


def _matches(guest: GuestSummary, patterns: Sequence[str]) -> bool:
    return any(one in (guest.name, guest.id) or fnmatchcase(guest.name, one) for one in patterns)
