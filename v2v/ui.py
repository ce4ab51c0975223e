"""Event sinks: what a person sees of a running job, and what a program reads.

`display` gives the sink of one of the KINDS as a context manager. Guests name things, so every text
is cleaned of control characters before it reaches a terminal.
"""

from __future__ import annotations

import json
import textwrap
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from v2v import events
from v2v.events import Emit, Event
from v2v.texts import clean, size_text, time_text

if TYPE_CHECKING:
    from rich.progress import TaskID

KINDS = ("rich", "plain", "json", "none")
PLAIN_SECONDS = 10.0  # between two progress lines of one disk
JSON_SECONDS = 0.5  # between two progress objects of one disk
COPY = "copy"  # the phase of a disk's progress that counts for all disks together
ALL_DISKS = -1  # their number, where each disk has one
RICH_PER_SECOND = 8.0  # redraws: smooth to the eye, cheap over ssh


def choose(kind: str, stream: TextIO, *, verbose: bool = False) -> str:
    """`auto` becomes rich on a terminal; plain elsewhere, and where debug lines run in between."""
    if kind != "auto":
        return kind
    return "rich" if stream.isatty() and not verbose else "plain"


@contextmanager
def display(
    kind: str, stream: TextIO, *, color: bool = False, width: int | None = None
) -> Iterator[Emit]:
    """The sink of a kind, writing to `stream`. `width`: wrap plain lines to so many columns."""
    if kind == "rich":
        rich = Rich(stream, color=color)
        with rich.live:
            yield rich
    elif kind == "json":
        yield Json(stream)
    elif kind == "plain":
        yield Plain(stream, color=color or stream.isatty(), width=width)
    else:
        yield Quiet(stream, color=color or stream.isatty(), width=width)


class Pace:
    """Thins out progress: the first of a disk's phase, the last, and one every so many seconds."""

    def __init__(self) -> None:
        self._told: dict[int, tuple[float, str, int, int]] = {}  # disk: when, and what
        self._copying: set[int] = set()
        self.several = False  # disks have been copied at the same time

    def due(self, event: events.CopyProgress, seconds: float) -> bool:
        if event.phase == COPY and event.done < event.total:
            self._copying.add(event.disk)
        else:
            self._copying.discard(event.disk)
        self.several = self.several or len(self._copying) > 1
        return self._due(event.disk, event.phase, event.done, event.total, event.at, seconds)

    def all_due(self, event: events.CopyProgress, seconds: float) -> bool:
        """Whether to tell of all disks together."""
        return self.several and self._due(
            ALL_DISKS, COPY, event.all_done, event.all_total, event.at, seconds
        )

    def _due(self, key: int, phase: str, done: int, total: int, at: float, seconds: float) -> bool:
        if (last := self._told.get(key)) is not None:
            told, *what = last
            if what == [phase, done, total]:
                return False
            if what[0] == phase and done < total and at - told < seconds:
                return False
        self._told[key] = (at, phase, done, total)
        return True


def figures(done: int, total: int, rate: float, eta: float | None) -> list[str]:
    """300 MiB of 2 GiB, 210 MiB/s, 8 s left: as far as they are known."""
    found = [f"{size_text(done)} of {size_text(total)}"]
    if rate > 0:
        found.append(f"{size_text(rate)}/s")
    if eta is not None and done < total:
        left = round(eta)
        found.append(f"{left} s left" if left < 60 else f"{time_text(left)} left")
    return found


def _subject(event: events.CopyProgress) -> str:
    disk = f"disk {event.disk + 1}"
    verb = {"verify": "verifying ", "send": "sending "}.get(event.phase, "")
    return f"{verb}{disk}"


def _figures(event: events.CopyProgress) -> list[str]:
    return figures(event.done, event.total, event.rate, event.eta)


def _all_figures(event: events.CopyProgress) -> list[str]:
    return figures(event.all_done, event.all_total, event.all_rate, event.all_eta)


class Lines(Pace, ABC):
    """A sink that writes lines. Events come from any thread; a reader that left is no failure."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lock = threading.Lock()
        self._gone = False

    def __call__(self, event: Event) -> None:
        with self._lock:
            text = self.text(event)
            if text is not None and not self._gone:
                try:
                    self._stream.write(text + "\n")
                    self._stream.flush()
                except BrokenPipeError:
                    self._gone = True

    @abstractmethod
    def text(self, event: Event) -> str | None:
        """The line of an event, None for no line."""


class Json(Lines):
    """One JSON object a line: v2v.events.to_json."""

    def text(self, event: Event) -> str | None:
        if isinstance(event, events.CopyProgress) and not self.due(event, JSON_SECONDS):
            return None
        return json.dumps(events.to_json(event))


class Quiet(Lines):
    """Warnings only."""

    def __init__(self, stream: TextIO, *, color: bool = False, width: int | None = None) -> None:
        super().__init__(stream)
        self._color = color
        self._width = width

    def text(self, event: Event) -> str | None:
        if not isinstance(event, events.Warned):
            return None
        hint = f" ({event.hint})" if event.hint else ""
        line = self.wrapped(f"v2v: warning: {clean(event.text)}{clean(hint)}")
        return f"\033[1;35m{line}\033[0m" if self._color else line

    def wrapped(self, line: str) -> str:
        return textwrap.fill(line, self._width) if self._width else line


class Plain(Quiet):
    """Lines such as `[   3.2] Converting the guest`; the number counts seconds."""

    def __init__(self, stream: TextIO, *, color: bool = False, width: int | None = None) -> None:
        super().__init__(stream, color=color, width=width)
        self._start: float | None = None

    def text(self, event: Event) -> str | None:
        if self._start is None:
            self._start = event.at
        seconds = f"[{event.at - self._start:6.1f}]"
        lines = [self.wrapped(f"{seconds} {clean(words)}") for words in self._words(event)]
        return "\n".join(lines) or super().text(event)

    def _words(self, event: Event) -> Iterator[str]:
        match event:
            case events.JobStarted():
                yield f"{'Resuming' if event.resumed else 'Starting'} job {event.job}"
            case events.StepStarted():
                yield event.title
            case events.StepFinished(reused=True):
                yield f"{event.title}: was done before"
            case events.CopyProgress():
                yield from self._progress(event)
            case events.Message():
                yield event.text

    def _progress(self, event: events.CopyProgress) -> Iterator[str]:
        if self.due(event, PLAIN_SECONDS):
            yield f"{_subject(event).capitalize()}: {', '.join(_figures(event))}"
        if self.all_due(event, PLAIN_SECONDS):
            yield f"All disks: {', '.join(_all_figures(event))}"


class Rich(Pace):
    """Steps with ticks and times above, a bar per disk below; redrawn in place."""

    def __init__(self, stream: TextIO, *, color: bool = False) -> None:
        super().__init__()
        from rich.console import Console, Group
        from rich.live import Live
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self.console = Console(file=stream, force_terminal=color or None, highlight=False)
        text = TextColumn("{task.description}", markup=False)
        self._steps = Progress(SpinnerColumn(), text, TimeElapsedColumn(), console=self.console)
        figures = TextColumn("{task.fields[figures]}", markup=False)
        self._disks = Progress(text, BarColumn(), figures, console=self.console)
        self.live = Live(
            Group(self._steps, self._disks),
            console=self.console,
            refresh_per_second=RICH_PER_SECOND,
        )
        self._step_tasks: dict[str, TaskID] = {}
        self._bars: dict[int, TaskID] = {}  # by disk
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        with self._lock:
            self._show(event)

    def _show(self, event: Event) -> None:
        match event:
            case events.JobStarted():
                self._line(f"{'Resuming' if event.resumed else 'Starting'} job {event.job}", "dim")
            case events.StepStarted():
                title = "  " * event.depth + clean(event.title)
                self._step_tasks[event.step] = self._steps.add_task(title, total=None)
            case events.StepFinished():
                self._finished(event)
            case events.CopyProgress():
                self._progress(event)
            case events.Message():
                self._line(f"  {event.text}")
            case events.Warned():
                self._line(f"! {event.text}" + (f" ({event.hint})" if event.hint else ""), "yellow")
            case events.JobFailed():
                self._failed()

    def _line(self, text: str, style: str | None = None) -> None:
        self.console.print(clean(text), style=style, markup=False)

    def _finished(self, event: events.StepFinished) -> None:
        if (task := self._step_tasks.pop(event.step, None)) is not None:
            self._steps.remove_task(task)
        note = "was done before" if event.reused else time_text(event.seconds)
        style = "dim" if event.reused else "green"
        self._line(f"{'  ' * event.depth}✓ {event.title}  {note}", style)

    def _failed(self) -> None:
        """The steps that were running are those that failed."""
        titles = {task.id: task.description for task in self._steps.tasks}
        for task in self._step_tasks.values():
            self._steps.remove_task(task)
            title = titles[task].lstrip()
            self._line(f"{titles[task].removesuffix(title)}✗ {title}", "red")
        self._step_tasks.clear()

    def _progress(self, event: events.CopyProgress) -> None:
        if self.due(event, 1 / RICH_PER_SECOND):
            self._bar(event.disk, _subject(event), event.done, event.total, _figures(event))
        if self.all_due(event, 1 / RICH_PER_SECOND):
            self._bar(ALL_DISKS, "all disks", event.all_done, event.all_total, _all_figures(event))

    def _bar(self, key: int, title: str, done: int, total: int, figures: list[str]) -> None:
        if key not in self._bars:
            if (last := self._bars.pop(ALL_DISKS, None)) is not None:
                self._disks.remove_task(last)  # it comes again, below the new one
                self._told.pop(ALL_DISKS)
            self._bars[key] = self._disks.add_task("", figures="")
        self._disks.update(
            self._bars[key],
            description=f"  {title}",
            completed=done,
            total=total,
            figures="  ".join(figures),
        )
