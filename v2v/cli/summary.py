"""What convert prints when it is done, and the texts of a source."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from v2v.texts import clean, size_text, time_text
from v2v.types import (
    BootEvidence,
    Checksum,
    ConvertedGuest,
    Nic,
    Removable,
    Source,
    SourceDisk,
)

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


MAX_DESCRIPTION = 70  # characters of it that --print-source shows


def source_text(source: Source) -> str:
    """What --print-source prints: a line for each thing that the source tells."""
    lines = [f"{label + ':':<13}{clean(str(value))}" for label, value in _facts(source) if value]
    lines += ["disks:", *_numbered(map(_disk_line, source.disks))]
    if source.removables:
        lines += ["removable drives:", *_numbered(map(_drive_line, source.removables))]
    if source.nics is None:
        return "\n".join([*lines, "network cards:", "  the source does not tell"])
    return "\n".join([*lines, "network cards:", *_numbered(map(_nic_line, source.nics))])


def _facts(source: Source) -> Sequence[tuple[str, object]]:
    """What is said of the whole VM, in the order in which it is shown."""
    return [
        ("name", source.name),
        ("description", _first_line(source.description or "")),
        ("uuid", source.uuid),
        ("hypervisor", source.hypervisor),
        ("system", source.osinfo),
        ("memory", size_text(source.memory)),
        ("vCPUs", _vcpus_text(source)),
        ("CPU", " ".join(word for word in (source.cpu.vendor, source.cpu.model) if word)),
        ("machine", source.machine),
        ("firmware", source.firmware or "told from the disks"),
        ("secure boot", "yes" if source.secure_boot else None),
        ("TPM", "yes" if source.tpm else None),
        ("NVRAM", source.nvram),
        ("clock", {True: "UTC", False: "local time", None: None}[source.rtc_utc]),
        ("features", ", ".join(source.features)),
        ("genid", source.genid),
        ("display", source.display),
        ("video", source.video),
        ("sound", source.sound),
        ("vsock", "yes" if source.vsock else None),
        ("snapshots", ", ".join(source.snapshots)),
    ]


def _first_line(text: str) -> str:
    """The first line of a text, cut; an ellipsis tells that there is more."""
    text = text.strip()
    first = text.split("\n", 1)[0].rstrip()[:MAX_DESCRIPTION]
    return f"{first} ..." if first != text else first


def _vcpus_text(source: Source) -> str:
    """8 (2 sockets, 4 cores, 1 thread); cores are of a socket, threads of a core."""
    cpu = source.cpu
    parts = ((cpu.sockets, "socket"), (cpu.cores, "core"), (cpu.threads, "thread"))
    topology = ", ".join(f"{n} {word}{'s' if n != 1 else ''}" for n, word in parts if n)
    return f"{source.vcpus} ({topology})" if topology else str(source.vcpus)


def _numbered(texts: Iterable[str]) -> list[str]:
    return [f"  {number}. {clean(text)}" for number, text in enumerate(texts, 1)] or ["  none"]


def _disk_line(disk: SourceDisk) -> str:
    member = disk.details.get("member")
    return f"{disk.location}{f', {member}' if member else ''}" + _bracketed(
        disk.format,
        size_text(disk.size) if disk.size is not None else None,
        f"on {disk.controller}" if disk.controller else None,
        f"boot order {disk.boot_order}" if disk.boot_order is not None else None,
        f"serial {disk.serial}" if disk.serial else None,
        _checksum_text(disk.checksum) if disk.checksum else None,
    )


def _checksum_text(checksum: Checksum) -> str:
    doubt = "" if checksum.enforced else ", not enforced"
    return f"{checksum.algorithm} {checksum.digest}{doubt}"


def _drive_line(drive: Removable) -> str:
    return drive.kind + _bracketed(f"on {drive.controller}" if drive.controller else None)


def _nic_line(nic: Nic) -> str:
    return f"{nic.mac or 'no MAC'} on {nic.kind} {nic.network}" + _bracketed(
        nic.model,
        f"slot {nic.slot}" if nic.slot is not None else None,
        None if nic.connected else "unplugged",
    )


def _bracketed(*facts: str | None) -> str:
    """What is known, in brackets behind what it is said of; nothing if nothing is known."""
    known = ", ".join(fact for fact in facts if fact)
    return f" ({known})" if known else ""
