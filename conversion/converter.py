"""The converter: opens the guest's disks in an appliance and repairs the guest inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from conversion import session
from conversion.guest import Guest
from conversion.inspection import UNKNOWN, Root
from conversion.problems import Problems
from conversion.session import Disks, open_disks
from v2v.converter import Inspection, nobody_waits
from v2v.endpoint import Endpoint
from v2v.job import ConversionOptions
from v2v.run import Run
from v2v.types import Change, ConvertedGuest, DiskFormat, Source, SourceDisk


class GuestfsConverter:
    """The Converter that works with libguestfs."""

    def convert(
        self,
        source: Source,
        endpoints: Sequence[Endpoint],
        options: ConversionOptions,
        run: Run,
        trimmed: Callable[[], None] = nobody_waits,
    ) -> ConvertedGuest:
        began = len(run.timings)
        problems = Problems()
        with open_disks(source, endpoints, options, run, problems) as disks:
            session.check(disks)
            root = session.find_root(disks)
            guest = session.mount(disks, root)
            session.check_room(disks, guest)
            session.trim(disks, guest, "convert:trim-before", "Trimming free space")
            trimmed()
            changes = apply_steps(guest)
            converted = describe(guest, changes)
            session.trim(disks, guest, "convert:trim-after", "Trimming what was freed")
            session.unmount_and_check(disks, guest)
        timings = [step for step in run.timings[began:] if step.name.startswith("convert:")]
        return replace(converted, findings=tuple(problems.findings), timings=tuple(timings))

    def inspect(
        self, source: Source, endpoints: Sequence[Endpoint], options: ConversionOptions, run: Run
    ) -> Inspection:
        began = len(run.timings)
        with open_disks(source, endpoints, options, run, Problems(collect=True)) as disks:
            session.check(disks)
            inspection = look(disks)
        return replace(inspection, timings=tuple(run.timings[began:]))

    def add_serial_console(
        self,
        guest: ConvertedGuest,
        endpoints: Sequence[Endpoint],
        options: ConversionOptions,
        run: Run,
    ) -> None:
        from conversion import linux

        source = _source_of(guest, endpoints)
        with open_disks(source, endpoints, options, run, Problems(collect=True)) as disks:
            linux.add_serial_console(session.mount(disks, Root(guest.root, guest.os)))


def apply_steps(guest: Guest) -> list[Change]:
    """Do every step: it decides by looking at the guest, then its actions are applied."""
    from conversion import linux

    changes: list[Change] = []
    for name, step in linux.STEPS:
        with guest.run.step(f"convert:{name}", f"Converting: {name}"):
            for action in tuple(step(guest)):
                guest.run.cancel.check()
                changes += action.apply(guest)
    return changes


def plan_steps(guest: Guest, problems: Problems) -> list[Change]:
    """What every step would do to the guest as it is now; a refused step has no plan."""
    from conversion import linux

    changes: list[Change] = []
    with guest.run.step("convert:plan", "Working out what would be changed"):
        for _, step in linux.STEPS:
            with problems.collecting():
                changes += [action.change for action in step(guest)]
    return changes


def describe(guest: Guest, changes: Sequence[Change]) -> ConvertedGuest:
    """The converted guest, and the devices it has drivers for."""
    from conversion import linux

    with guest.run.step("convert:describe", "Choosing the target's devices"):
        return ConvertedGuest(
            os=guest.os,
            firmware=guest.firmware,
            root=guest.root,
            boot_disk=guest.boot_disk,
            caps=linux.caps(guest),
            nics=linux.named_nics(guest),
            kernel=linux.chosen_kernel(guest).version,
            serial_console=linux.has_serial_console(guest),
            changes=tuple(changes),
        )


def look(disks: Disks) -> Inspection:
    """Find out all that can be found out; every refusal becomes a blocker."""
    problems = disks.problems
    root: Root | None = None
    guest: Guest | None = None
    result = _nothing_known(disks)
    with problems.collecting():
        root = session.find_root(disks)
        result = replace(
            result, os=root.os, root=root.device, roots=tuple(r.device for r in disks.roots)
        )
    with problems.collecting():
        if root is not None and root.os.type == "linux":
            guest = session.mount(disks, root)
            session.check_room(disks, guest)
            result = replace(result, os=guest.os, boot_disk=guest.boot_disk)
    if guest is not None and session.refusal(guest.os) is None:
        result = _with_plan(result, guest, problems)
    return replace(result, convertible=not problems.blocked, findings=tuple(problems.findings))


def _nothing_known(disks: Disks) -> Inspection:
    return Inspection(
        os=UNKNOWN,
        firmware=disks.firmware,
        root="",
        roots=(),
        boot_disk=0,
        kernel=None,
        nics=disks.source.nics or (),
        filesystems={fs.device: fs.type for fs in disks.volumes.filesystems},
        convertible=False,
        changes=(),
        findings=(),
    )


def _with_plan(inspection: Inspection, guest: Guest, problems: Problems) -> Inspection:
    from conversion import linux

    changes = tuple(plan_steps(guest, problems))
    kernel, nics = None, inspection.nics
    with problems.collecting():
        nics = linux.named_nics(guest)
        kernel = linux.chosen_kernel(guest).version
    return replace(inspection, changes=changes, kernel=kernel, nics=nics)


def _source_of(guest: ConvertedGuest, endpoints: Sequence[Endpoint]) -> Source:
    """What a converted guest's disks are, for steps that ask; they have no controllers yet."""
    disks = tuple(SourceDisk(one.uri, DiskFormat.RAW, one.size) for one in endpoints)
    return Source("converted", "converted", disks, nics=guest.nics, firmware=guest.firmware)
