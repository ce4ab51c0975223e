"""What a job leaves for people and programs: report.html and report.json.

The page is one file without scripts or links to elsewhere, so that it can be mailed and kept. All
that came from the guest is hostile: it is cleaned here and escaped by the template.
"""

from __future__ import annotations

import base64
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from v2v.job import Job
from v2v.source_facts import disk_facts, disk_place, told
from v2v.texts import clean_lines, clock_text, size_text, time_text
from v2v.types import (
    BOOT_MILESTONES,
    BootEvidence,
    ConvertedGuest,
    CopyResult,
    Finding,
    GuestRef,
    MiB,
    Source,
    Timing,
)

MAX_TEXT = 20_000  # characters of one string
MAX_PICTURE = 8 * MiB  # bytes of a screenshot that is worth embedding
CONSOLE_LINES = 150  # the end of the console that the page shows
USER_IN_URL = re.compile(r"(://[^/\s:@]*):[^/\s@]*@")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything known when a job ended. Times are Unix seconds."""

    version: str  # of v2v
    job_id: str
    status: str  # finished, failed or cancelled
    started: float
    finished: float
    job: Job
    error: str | None = None  # the stable id
    message: str | None = None
    hint: str | None = None
    source: Source | None = None
    guest: ConvertedGuest | None = None
    copies: tuple[CopyResult, ...] = ()
    ref: GuestRef | None = None
    boot: BootEvidence | None = None
    timings: tuple[Timing, ...] = ()
    warnings: tuple[Finding, ...] = ()


def write(report: Report, folder: Path) -> Path:
    """Write report.json and report.html into a job's folder; gives the page's path."""
    report = safe(report)
    data = msgspec.json.format(msgspec.json.encode(report), indent=2)
    _replace(folder / "report.json", data + b"\n")
    page = folder / "report.html"
    _replace(page, html(report, folder).encode())
    return page


def safe(report: Report) -> Report:
    """The report with every string cleaned, bounded, and free of passwords in URLs."""
    return msgspec.convert(_safe(msgspec.to_builtins(report)), Report)


def _safe(value: Any) -> Any:
    if isinstance(value, str):
        return USER_IN_URL.sub(r"\1:***@", clean_lines(value[:MAX_TEXT]))
    if isinstance(value, dict):
        return {_safe(key): _safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_safe(item) for item in value]
    return value


def _replace(path: Path, data: bytes) -> None:
    """A reader sees the old file or the new one, never a part."""
    working = path.with_name(f".{path.name}.new")
    with working.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    working.replace(path)


# The page -----------------------------------------------------------------------------------------


def html(report: Report, folder: Path) -> str:
    """The page; `folder` holds the screenshot and the console's log."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        size=size_text,
        time=time_text,
        clock=clock_text,
        facts=copy_facts,
        rate=rate_text,
        place=disk_place,
        disk_facts=disk_facts,
    )
    return environment.get_template("report.html.j2").render(
        r=report,
        name=_name(report),
        headline=headline(report),
        seconds=report.finished - report.started,
        told=told(report.source) if report.source else [],
        chart=chart(report),
        milestones=_milestones(report.boot),
        screenshot=_screenshot(report.boot, folder),
        console=_console(report.boot, folder),
        findings=[*report.warnings, *(report.guest.findings if report.guest else ())],
        logs=_logs(folder),
    )


def copy_facts(copy: CopyResult) -> list[str]:
    """What there is to say of how a disk was copied, beyond its sizes and its time."""
    facts = []
    if copy.resumed:
        facts.append(f"{size_text(copy.resumed)} were there already, from an earlier run")
    if copy.by_kernel:
        facts.append(f"{size_text(copy.by_kernel)} were moved or shared by the kernel")
    if copy.found_zero:
        facts.append(f"{size_text(copy.found_zero)} of data turned out to be zeroes")
    if copy.retries:
        facts.append(f"{copy.retries} reads or connections had to be repeated")
    if copy.verified:
        part = "all of it" if copy.verified >= 1 else f"{copy.verified:.0%} of it"
        facts.append(f"read back and compared: {part}")
    if copy.checksum:
        facts.append(f"checksum {copy.checksum}")
    return [*facts, *copy.notes]


def rate_text(copy: CopyResult) -> str:
    """The data that was moved, per second; empty when none was."""
    return f"{size_text(int(copy.data / copy.seconds))}/s" if copy.seconds and copy.data else ""


def _name(report: Report) -> str:
    if report.ref:
        return report.ref.name
    return report.source.name if report.source else report.job.name or report.job_id


def headline(report: Report) -> str:
    """The verdict in one sentence."""
    if report.status == "finished" and report.boot:
        return f"Converted, and it boots: {_proof(report.boot)}."
    if report.status == "finished":
        return "Converted. It has not been booted yet." if report.guest else "Copied."
    kept = "; the finished copy is kept" if report.ref else ""
    if report.status == "cancelled":
        return f"Cancelled{kept or '; nothing is left at the target'}."
    return f"Failed{kept}: {report.message or report.error or 'no reason is known'}"


def _proof(boot: BootEvidence) -> str:
    proof = "the login prompt" if boot.reached == "login" else "the guest agent"
    return f"{proof} answered {time_text(boot.seconds)} after power-on"


def _milestones(boot: BootEvidence | None) -> list[tuple[str, bool]]:
    if boot is None:
        return []
    known = boot.reached if boot.reached in BOOT_MILESTONES else "nothing"
    furthest = BOOT_MILESTONES.index(known)
    return [(name, index <= furthest) for index, name in enumerate(BOOT_MILESTONES) if index]


def _screenshot(boot: BootEvidence | None, folder: Path) -> str | None:
    """The picture as a data: URI."""
    path = _file(folder, boot.screenshot if boot else None)
    if path is None or path.stat().st_size > MAX_PICTURE:
        return None
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _console(boot: BootEvidence | None, folder: Path) -> str | None:
    path = _file(folder, boot.console_log if boot else None)
    if path is None:
        return None
    lines = clean_lines(path.read_text(encoding="utf-8", errors="replace")).rstrip().split("\n")
    return "\n".join(line[:1000] for line in lines[-CONSOLE_LINES:])


def _file(folder: Path, name: str | None) -> Path | None:
    path = folder / Path(name).name if name else None
    return path if path and path.is_file() else None


def _logs(folder: Path) -> list[str]:
    found = [*folder.glob("log/*.log"), *folder.glob("boot-check.log"), folder / "report.json"]
    return sorted(clean_lines(str(path)) for path in found)


# The chart of timings -----------------------------------------------------------------------------

ROW = 26  # height of a row; all lengths are units of the drawing, which is CHART wide
CHART = 1000
LABELS = 290  # room for the names on the left
TIMES = 90  # room for the seconds on the right
MAX_ROWS = 80


@dataclass(frozen=True, slots=True)
class Bar:
    label: str
    depth: int  # how many longer steps it is part of
    time: str
    x: float
    y: int
    width: float
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Tick:
    x: float
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    height: int
    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]


def chart(report: Report) -> Chart | None:
    """The steps on a time axis, in the order they began."""
    steps = _steps(report)[:MAX_ROWS]
    if not steps:
        return None
    end = max(max(start + step.seconds for start, step in steps), 0.001)
    scale = (CHART - LABELS - TIMES) / end
    bars = tuple(
        Bar(
            label=(step.title or step.name)[:60],
            depth=step.depth,
            time=time_text(step.seconds),
            x=round(LABELS + start * scale, 1),
            y=index * ROW,
            width=max(round(step.seconds * scale, 1), 1.5),
            failed=report.status == "failed" and start + step.seconds >= end,
        )
        for index, (start, step) in enumerate(steps)
    )
    ticks = tuple(Tick(round(LABELS + at * scale, 1), time_text(at)) for at in _tick_times(end))
    return Chart(len(bars) * ROW, bars, ticks)


def _steps(report: Report) -> list[tuple[float, Timing]]:
    """(start, step). A step whose start is unknown begins where the one before it ended."""
    steps = []
    now = 0.0
    for timing in report.timings:
        start = now if timing.start is None else timing.start
        now = start + timing.seconds
        steps.append((start, timing))
    known = {timing.name for timing in report.timings}
    now = next((start for start, step in steps if step.name == "guest"), None) or 0.0
    for timing in report.guest.timings if "guest" in known and report.guest else ():
        if timing.name not in known:
            steps.append((now, timing))
            now += timing.seconds
    return sorted(steps, key=lambda pair: (round(pair[0], 3), -pair[1].seconds))


def _tick_times(end: float) -> list[float]:
    """From 2 to 6 round times on an axis of `end` seconds."""
    for unit in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200):
        if end / unit <= 6:
            return [unit * i for i in range(int(end / unit) + 1)]
    return [0.0, end]
