"""What people and programs see of a job's events."""

from __future__ import annotations

import io
import json

import pytest

from v2v import events, texts, ui

GiB = 1024**3

JOB: list[events.Event] = [
    events.JobStarted(job="j", at=100.0, name="vm", folder="/jobs/j"),
    events.StepFinished(
        job="j", at=100.0, step="source", title="Reading the source", seconds=0.0, reused=True
    ),
    events.StepStarted(job="j", at=100.5, step="guest", title="Converting the guest"),
    events.Warned(job="j", at=101.0, id="w", text="no agent", hint="add one"),
    events.StepFinished(job="j", at=103.2, step="guest", title="Converting the guest", seconds=2.7),
    events.StepStarted(job="j", at=103.2, step="copied:0", title="Copying disk 1/1"),
    events.CopyProgress(job="j", at=104.0, disk=0, done=0, total=GiB),
    events.CopyProgress(job="j", at=105.0, disk=0, done=GiB // 8, total=GiB),
    events.CopyProgress(job="j", at=114.0, disk=0, done=GiB // 2, total=GiB),
    events.CopyProgress(job="j", at=124.0, disk=0, done=GiB, total=GiB),
    events.StepFinished(job="j", at=124.0, step="copied:0", title="Copying disk 1/1", seconds=20.8),
]


def shown(kind: str, *seen: events.Event, width: int | None = None, color: bool = False) -> str:
    stream = io.StringIO()
    with ui.display(kind, stream, width=width, color=color) as sink:
        for event in seen or JOB:
            sink(event)
    return stream.getvalue()


def test_plain_lines() -> None:
    assert shown("plain").splitlines() == [
        "[   0.0] Starting job j",
        "[   0.0] Reading the source: was done before",
        "[   0.5] Converting the guest",
        "v2v: warning: no agent (add one)",
        "[   3.2] Copying disk 1/1",
        "[   4.0] Disk 1: 0 B of 1 GiB",
        "[  14.0] Disk 1: 512 MiB of 1 GiB, 51.2 MiB/s, 10.0 s left",
        "[  24.0] Disk 1: 1 GiB of 1 GiB, 51.2 MiB/s",
    ]


def test_json_lines_are_the_events() -> None:
    lines = [json.loads(line) for line in shown("json").splitlines()]
    assert lines == [events.to_json(event) for event in JOB]


def test_json_progress_is_throttled() -> None:
    flood = [
        events.CopyProgress(job="j", at=i / 100, disk=0, done=i, total=1000) for i in range(1001)
    ]
    lines = [json.loads(line) for line in shown("json", *flood).splitlines()]
    assert len(lines) < 30
    assert (lines[0]["done"], lines[-1]["done"]) == (0, 1000)


def test_quiet_shows_warnings_only() -> None:
    assert shown("none") == "v2v: warning: no agent (add one)\n"


def test_rich_shows_steps_with_times_and_a_bar_per_disk() -> None:
    text = shown("rich")
    assert "✓ Reading the source  was done before" in text
    assert "✓ Converting the guest  2.7 s" in text
    assert "! no agent (add one)" in text
    assert "disk 1" in text
    assert "1 GiB of 1 GiB" in text


def test_rich_marks_the_step_that_failed() -> None:
    text = shown(
        "rich",
        events.StepStarted(job="j", step="guest", title="Converting the guest"),
        events.JobFailed(job="j", error="e", message="m"),
    )
    assert "✗ Converting the guest" in text


@pytest.mark.parametrize("kind", ["plain", "rich", "none"])
def test_a_guest_cannot_drive_the_terminal(kind: str) -> None:
    hostile = "name\033[2J\r[red]x[/red]\x07\u202e"
    text = shown(kind, events.Warned(job="j", id="w", text=hostile))
    assert not {"\033", "\r", "\x07", "\u202e"} & set(text)
    assert "[red]x[/red]" in text.replace("\n", "")


def test_wrap() -> None:
    text = shown("plain", events.Message(job="j", text="word " * 40), width=40)
    assert max(len(line) for line in text.splitlines()) <= 40


def test_color_is_for_those_who_ask() -> None:
    warning = events.Warned(job="j", id="w", text="careful")
    assert "\033[" in shown("plain", warning, color=True)
    assert "\033[" not in shown("plain", warning)


def test_a_reader_that_left_does_not_fail_the_job() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with ui.display("plain", Gone()) as sink:
        for event in JOB:
            sink(event)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (1000 * 1024, "1000 KiB"),
        (20 * GiB, "20 GiB"),
        (3 * 1024 * GiB, "3 TiB"),
    ],
)
def test_size_text(size: int, text: str) -> None:
    assert texts.size_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.21, "3.2 s"), (125, "2 min 05 s"), (4200, "1 h 10 min")]
)
def test_time_text(seconds: float, text: str) -> None:
    assert texts.time_text(seconds) == text


def test_choose() -> None:
    assert ui.choose("auto", io.StringIO()) == "plain"
    assert ui.choose("rich", io.StringIO()) == "rich"
