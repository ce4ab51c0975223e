"""What people and programs see of a job's events."""

from __future__ import annotations

import io
import json

import pytest

from v2v import events, texts, ui

MiB = 1024**2
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
    events.CopyProgress(job="j", at=105.0, disk=0, done=GiB // 8, total=GiB, rate=5e7, eta=17.4),
    events.CopyProgress(job="j", at=114.0, disk=0, done=GiB // 2, total=GiB, rate=5e7, eta=10.4),
    events.CopyProgress(job="j", at=124.0, disk=0, done=GiB, total=GiB, rate=5e7, eta=0.0),
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
        "[  14.0] Disk 1: 512 MiB of 1 GiB, 47.7 MiB/s, 10 s left",
        "[  24.0] Disk 1: 1 GiB of 1 GiB, 47.7 MiB/s",
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


def progress(at: float, disk: int, done: int, total: int, **more: object) -> events.CopyProgress:
    """In MiB, for two disks of which the other one has 100 of 1000 MiB, at 50 MiB/s each."""
    values: dict[str, object] = {
        "rate": 50.0 * MiB,
        "eta": (total - done) / 50,
        "all_done": (done + 100) * MiB,
        "all_total": (total + 1000) * MiB,
        "all_rate": 100.0 * MiB,
        "all_eta": (total - done + 900) / 100,
    }
    return events.CopyProgress(
        job="j", at=at, disk=disk, done=done * MiB, total=total * MiB, **{**values, **more}
    )


SIDE_BY_SIDE = [
    events.StepStarted(job="j", at=0.0, step="guest", title="Converting the guest"),
    progress(1.0, 0, 0, 1000, rate=0.0, eta=None, all_done=0, all_total=1000 * MiB),
    progress(1.1, 1, 0, 2000, all_rate=0.0, all_eta=None),
    progress(2.0, 0, 100, 1000),
    progress(11.1, 1, 500, 2000),
    events.StepFinished(job="j", at=11.5, step="guest", title="Converting the guest", seconds=11.5),
    progress(21.1, 1, 2000, 2000, all_done=2500 * MiB, all_total=3000 * MiB),
    progress(22.1, 0, 1000, 1000, all_done=3000 * MiB, all_total=3000 * MiB),
]


def test_plain_tells_of_all_disks_when_several_are_copied() -> None:
    assert shown("plain", *SIDE_BY_SIDE).splitlines() == [
        "[   0.0] Converting the guest",
        "[   1.0] Disk 1: 0 B of 1000 MiB",
        "[   1.1] Disk 2: 0 B of 1.95 GiB, 50 MiB/s, 40 s left",
        "[   1.1] All disks: 100 MiB of 2.93 GiB",
        "[  11.1] Disk 2: 500 MiB of 1.95 GiB, 50 MiB/s, 30 s left",
        "[  11.1] All disks: 600 MiB of 2.93 GiB, 100 MiB/s, 24 s left",
        "[  21.1] Disk 2: 1.95 GiB of 1.95 GiB, 50 MiB/s",
        "[  21.1] All disks: 2.44 GiB of 2.93 GiB, 100 MiB/s, 9 s left",
        "[  22.1] Disk 1: 1000 MiB of 1000 MiB, 50 MiB/s",
        "[  22.1] All disks: 2.93 GiB of 2.93 GiB, 100 MiB/s",
    ]


def test_disks_one_after_the_other_have_no_line_for_all() -> None:
    lines = shown("plain", progress(1, 0, 1000, 1000), progress(2, 1, 10, 50)).splitlines()
    assert [line.split("] ")[1].partition(":")[0] for line in lines] == ["Disk 1", "Disk 2"]


def test_verifying_is_called_so() -> None:
    seen = [progress(1, 0, 10, 10), progress(1.5, 0, 0, 10, phase="verify", rate=0.0)]
    assert shown("plain", *seen).splitlines()[-1] == (
        "[   0.5] Verifying disk 1: 0 B of 10 MiB, 0 s left"
    )
    assert "verifying disk 1" in shown("rich", *seen)


def test_what_has_not_changed_is_not_told_again() -> None:
    """A copy in several passes ends more than once."""
    assert len(shown("plain", progress(1, 0, 10, 10), progress(20, 0, 10, 10)).splitlines()) == 1


@pytest.mark.parametrize(
    ("eta", "text"),
    [(None, ""), (0.4, "0 s left"), (59.4, "59 s left"), (59.6, "1 min 00 s left")],
)
def test_time_left(eta: float | None, text: str) -> None:
    line = shown("plain", progress(1, 0, 1, 10, eta=eta)).strip()
    assert line.endswith(text or "50 MiB/s")


def test_rich_has_a_bar_per_disk_and_one_for_all_below() -> None:
    rows = shown("rich", *SIDE_BY_SIDE).rstrip().splitlines()
    assert "✓ Converting the guest" in rows[0]
    assert [row.split("━")[0].strip() for row in rows[-3:]] == ["disk 1", "disk 2", "all disks"]
    assert "2.93 GiB of 2.93 GiB  100 MiB/s" in rows[-1]


def test_rich_shows_the_time_left_while_a_step_runs() -> None:
    text = shown("rich", *SIDE_BY_SIDE[:5])
    assert "Converting the guest" in text
    assert "50 MiB/s  30 s left" in text
    assert "100 MiB/s  24 s left" in text


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
