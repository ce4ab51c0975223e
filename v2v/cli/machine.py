"""--machine-readable: capabilities for programs that start v2v, and messages as JSON lines.

The spelling, and the shape {"message", "timestamp", "type"}, are virt-v2v's, so that programs that
read it can read v2v. `--progress json` tells more: see docs/events.md.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from v2v import events, registry, ui
from v2v.errors import UsageError
from v2v.events import Emit, Event

FEATURES = (
    "v2v",
    "colours-option",
    "io/oo",
    "mac-option",
    "parallel-option",
    "block-driver-option",
    "boot-check-option",
    "no-convert-option",
    "json-progress",
    "resume",
    "start-option",
    "storage-option",
    "vdsm-compat-option",
)


def capabilities() -> list[str]:
    """The lines of `v2v --machine-readable` without guests; outputs under all their names."""
    outputs = registry.outputs()
    return [
        *FEATURES,
        *(f"input:{mode}" for mode in registry.inputs()),
        *(f"output:{name}" for cls in outputs.values() for name in (cls.mode, *cls.aliases)),
        "convert:linux",
        "ovf:ovirt",
        "ovf:ovirtexp",
    ]


def writes_to(log_format: str, stream: TextIO) -> bool:
    """Whether the messages go to the same file descriptor as `stream`."""
    kind, _, where = log_format.partition(":")
    number = {"stdout": 1, "stderr": 2}.get(where, where) if kind != "file" else None
    return str(number) == str(_fileno(stream))


def _fileno(stream: TextIO) -> int:
    try:
        return stream.fileno()
    except OSError:  # a stream that is not a file
        return -1


@contextmanager
def log_sink(log_format: str) -> Iterator[Emit]:
    """The sink of --machine-readable=FORMAT: file:F, stream:stdout, stream:stderr or fd:N."""
    stream = _open(log_format)
    try:
        yield Messages(stream)
    finally:
        if stream not in (sys.stdout, sys.stderr):
            stream.close()


def _open(log_format: str) -> TextIO:
    kind, _, where = log_format.partition(":")
    streams = {"stdout": sys.stdout, "stderr": sys.stderr}
    try:
        if kind == "stream" and where in streams:
            return streams[where]
        if kind == "fd" and where.isascii() and where.isdigit():
            return os.fdopen(int(where), "w", closefd=False)
        if kind == "file" and where:
            return Path(where).open("w")
    except OSError as exc:
        raise UsageError(
            f"--machine-readable={log_format}: {exc.strerror}", id="machine-readable-output"
        ) from exc
    raise UsageError(
        f"--machine-readable={log_format}: no such format",
        id="option-value",
        hint="file:PATH, stream:stdout, stream:stderr or fd:NUMBER",
    )


class Messages(ui.Lines):
    """Messages, progress, warnings and errors as {"message", "timestamp", "type"}."""

    def text(self, event: Event) -> str | None:
        match event:
            case events.StepStarted():
                return self._object("message", event.title, event)
            case events.JobFinished():
                return self._object("message", "Finishing off", event)
            case events.Message():
                return self._object("info", event.text, event)
            case events.Warned():
                return self._object("warning", event.text, event)
            case events.JobFailed():
                return self._object("error", event.message, event)
            case events.CopyProgress() if self.due(event, ui.JSON_SECONDS):
                return self._progress(event)
        return None

    def _object(self, kind: str, text: str, event: Event, **more: object) -> str:
        stamp = datetime.fromtimestamp(event.at, UTC).isoformat()
        return json.dumps({"message": text, "timestamp": stamp, "type": kind, **more})

    def _progress(self, event: events.CopyProgress) -> str:
        percent = 100 * event.done // event.total if event.total else 100
        return self._object(
            "progress",
            f"{percent}/100",
            event,
            disk=event.disk,
            done=event.done,
            total=event.total,
        )
