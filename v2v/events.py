"""What happens during a job, told as typed events.

A sink is any callable that takes an Event. Events are for users and programs; logging is for
developers. `to_json` gives the one-line form that `--progress json` prints and docs/events.md
describes: {"event": "step-started", "at": 1790000000.0, "job": "...", ...}. Times are Unix seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import ClassVar, TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    event: ClassVar[str]
    job: str
    at: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStarted(Event):
    event = "job-started"
    name: str
    folder: str
    resumed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFinished(Event):
    event = "job-finished"
    seconds: float
    report: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFailed(Event):
    event = "job-failed"
    error: str  # the stable id
    message: str
    hint: str | None = None
    resumable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStarted(Event):
    """`depth` is how many longer steps it is part of. Steps of one depth may run side by side."""

    event = "step-started"
    step: str
    title: str
    depth: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFinished(Event):
    """`reused` is true when the journal held the result of an earlier run of this job."""

    event = "step-finished"
    step: str
    title: str
    seconds: float
    reused: bool = False
    depth: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyProgress(Event):
    """Bytes of one disk: `done` of `total` bytes that hold data; holes are not counted.

    `rate` is bytes per second lately, `eta` seconds left; `all_...` tell of all disks together.
    """

    event = "copy-progress"
    disk: int
    done: int
    total: int
    phase: str = "copy"  # copy, verify, or send: of a copied image to where it belongs
    rate: float = 0.0
    eta: float | None = None
    all_done: int = 0
    all_total: int = 0
    all_rate: float = 0.0
    all_eta: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message(Event):
    event = "message"
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned(Event):
    event = "warning"
    id: str
    text: str
    hint: str | None = None


Emit: TypeAlias = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The sink of those who do not want events."""


def to_json(event: Event) -> dict[str, object]:
    """The event as a flat dict ready for json.dumps."""
    values = {f.name: getattr(event, f.name) for f in fields(event)}
    return {"event": event.event, **values}
