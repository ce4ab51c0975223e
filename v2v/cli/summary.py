"""What convert prints when it is done, and the texts of a source."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from v2v.source_facts import disk_text, drive_text, nic_text, source_facts
from v2v.texts import clean, size_text, time_text
from v2v.types import BootEvidence, ConvertedGuest, Source

if TYPE_CHECKING:
    from v2v.api import Result

SHORTEST_STEP = 0.1  # seconds; steps that took less are not worth a line


@dataclass
class TimedStep:
    """A step as it was timed; `depth` is how many steps it is part of."""

    step: str
    title: str
    depth: int
    seconds: float | None = None  # None while it runs
    reused: bool = False


def wanted(args: argparse.Namespace) -> bool:
    """Programs read events, and quiet is quiet."""
    log_format = getattr(args, "machine_readable", None) or ""
    return not args.quiet and args.progress not in ("json", "none") and "stdout" not in log_format


def json_text(value: object) -> str:
    return json.dumps(msgspec.to_builtins(value), indent=2)


def text(result: Result, steps: Iterable[TimedStep]) -> str:
    """The end of a successful job."""
    guest = result.guest
    done = "converted" if result.converted.kernel else "copied as it was"
    lines = ["", f"{clean(guest.name)} is {done}."]
    lines += [f"  disk      {clean(disk.location)}" for disk in guest.disks]
    for label, value in (
        ("metadata", guest.metadata),
        ("boots", boot_text(result.boot) if result.boot else None),
        ("report", str(result.report)),
        ("start it", guest.start_hint),
    ):
        if value:
            lines.append(f"  {label:<9} {clean(value)}")
    return "\n".join([*lines, *_copied(result), *_changes(result.converted), *timings(steps)])


def _copied(result: Result) -> list[str]:
    """How much was moved and how fast; details of a disk only where there are any."""
    from v2v.report import copy_facts

    lines = []
    for copy in result.copies:
        label = "copied" if copy.disk == 0 else ""
        rate = f", {size_text(int(copy.data / copy.seconds))}/s" if copy.seconds else ""
        moved = f"{size_text(copy.data)} in {time_text(copy.seconds)}{rate}"
        lines.append(f"  {label:<9} {moved}")
        lines += [f"    {clean(fact)}" for fact in copy_facts(copy)]
    return lines


def _changes(guest: ConvertedGuest) -> list[str]:
    """What was changed in the guest; where and why is in the report."""
    changes = dict.fromkeys(change.what for change in guest.changes)
    return [f"  changed   {'these in the guest' if changes else 'nothing in the guest'}"] + [
        f"    {clean(what)}" for what in changes
    ]


def boot_text(boot: BootEvidence) -> str:
    """What the boot check saw, in one line."""
    proofs = [f"reached {boot.reached} in {time_text(boot.seconds)} under {boot.accelerator}"]
    if boot.root_device:
        driver = f" ({boot.block_driver})" if boot.block_driver else ""
        proofs.append(f"root on {boot.root_device}{driver}")
    proofs += [f"{name} on {driver}" for name, driver in boot.nic_drivers.items()]
    if boot.agent:
        proofs.append(f"guest agent {boot.agent} answers")
    return ("yes: " if boot.passed else "no: ") + ", ".join(proofs)


def timings(steps: Iterable[TimedStep]) -> list[str]:
    """A line per step; the parts of a step are indented below it."""
    shown = [step for step in steps if step.reused or (step.seconds or 0) >= SHORTEST_STEP]
    labels = ["  " * step.depth + clean(step.title) for step in shown]
    width = max((len(label) for label in labels), default=0)
    lines = [
        f"    {label:<{width}}  " + ("done before" if step.reused else time_text(step.seconds or 0))
        for label, step in zip(labels, shown, strict=True)
    ]
    return ["  time", *lines] if lines else []


def source_text(source: Source) -> str:
    """What --print-source prints: a line for each thing that the source tells."""
    lines = [
        f"{label + ':':<13}{clean(str(value))}" for label, value in source_facts(source) if value
    ]
    lines += ["disks:", *_numbered(map(disk_text, source.disks))]
    if source.removables:
        lines += ["removable drives:", *_numbered(map(drive_text, source.removables))]
    if source.nics is None:
        return "\n".join([*lines, "network cards:", "  the source does not tell"])
    return "\n".join([*lines, "network cards:", *_numbered(map(nic_text, source.nics))])


def _numbered(texts: Iterable[str]) -> list[str]:
    return [f"  {number}. {clean(text)}" for number, text in enumerate(texts, 1)] or ["  none"]
