"""Runs a job for a subcommand: display, log, signals, and what to say when it fails.

The job runs in a worker thread. The main thread only waits, so that a signal reaches it at once
and can cancel what blocks outside Python, such as a call into the appliance.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TextIO, TypeVar

from v2v import events, ui
from v2v.cancel import Cancel
from v2v.cli import machine, summary
from v2v.errors import V2VError
from v2v.events import Emit, Event
from v2v.logs import logged_to

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class Watch:
    """A sink that remembers what the end of the command needs."""

    job: events.JobStarted | None = None
    failed: events.JobFailed | None = None
    steps: list[summary.TimedStep] = field(default_factory=list)  # in the order they started

    def __call__(self, event: Event) -> None:
        match event:
            case events.JobStarted():
                self.job = event
            case events.JobFailed():
                self.failed = event
            case events.StepStarted():
                self.steps.append(summary.TimedStep(event.step, event.title, event.depth))
            case events.StepFinished(reused=True):
                self.steps.append(summary.TimedStep(event.step, event.title, 0, 0.0, reused=True))
            case events.StepFinished():
                self._end(event)

    def _end(self, event: events.StepFinished) -> None:
        for step in reversed(self.steps):
            if step.step == event.step and step.seconds is None:
                step.seconds = event.seconds
                return

    def notes(self, jobs_dir: str | None) -> list[str]:
        """Where a failed job is, and how to go on with it."""
        if self.job is None or (self.failed and not self.failed.resumable):
            return []
        where = f" --jobs-dir {shlex.quote(jobs_dir)}" if jobs_dir else ""
        return [
            f"job folder: {self.job.folder}",
            f"to go on with the same options: v2v resume {self.job.job}{where}",
        ]


def perform(
    args: argparse.Namespace,
    action: Callable[[Emit, Cancel], T],
    *,
    stream: TextIO | None = None,
    take: Callable[[int], bool] | None = None,
) -> tuple[T, Watch]:
    """Do `action` as the command line asks: its events displayed, signals cancelling it.

    `take` is told of each signal first: true if it was dealt with, and cancels nothing. Raises what
    `action` raises, with notes that tell where the job is.
    """
    watch = Watch()
    cancel = Cancel()
    try:
        with ExitStack() as stack:
            stack.enter_context(verbose_log(args))
            sinks = [watch, *(stack.enter_context(sink) for sink in _displays(args, stream))]
            emit = _tee(sinks)
            try:
                result = in_worker(lambda: action(emit, cancel), cancel, take)
                if any(isinstance(sink, ui.Rich) for sink in sinks):
                    watch.steps.clear()  # people saw how long each took
                return result, watch
            except V2VError as exc:
                if watch.failed is None:  # it failed before it was a job
                    emit(_failure(exc))
                raise
    except BaseException as exc:
        for note in watch.notes(args.jobs_dir):
            exc.add_note(note)
        raise


def _failure(exc: V2VError) -> events.JobFailed:
    return events.JobFailed(
        job="", error=exc.id, message=exc.message, hint=exc.hint, resumable=False
    )


def _tee(sinks: list[Emit]) -> Emit:
    def emit(event: Event) -> None:
        for sink in sinks:
            sink(event)

    return emit


def _displays(args: argparse.Namespace, stream: TextIO | None) -> Iterator[Any]:
    """The sinks asked for, as context managers."""
    stream = stream or sys.stdout
    kind = "none" if args.quiet else args.progress
    log_format = getattr(args, "machine_readable", None)
    if log_format:
        yield machine.log_sink(log_format)
        if kind == "auto" and machine.writes_to(log_format, stream):
            return  # nothing else may stand between its lines
    kind = ui.choose(kind, stream, verbose=args.verbose or args.trace)
    yield ui.display(kind, stream, color=args.color, width=76 if args.wrap else None)


@contextmanager
def verbose_log(args: argparse.Namespace) -> Iterator[None]:
    """-v: what developers log goes to stderr too."""
    if not (args.verbose or args.trace):
        yield
        return
    with logged_to(logging.StreamHandler(), "%(relativeCreated)8.0f %(name)s: %(message)s"):
        yield


# Threads and signals ------------------------------------------------------------------------------


SAME_SECONDS = 0.3  # one Ctrl-C may come twice: from the terminal, and from what started us
DONE = b"\0"  # what the worker writes to the pipe
ASKED = 0x80  # and a signal's number, what our handler writes; a bare number only wakes the reader


def in_worker(
    action: Callable[[], T], cancel: Cancel, take: Callable[[int], bool] | None = None
) -> T:
    """Give what `action` gives or raises; meanwhile signals cancel it.

    The main thread reads a pipe. A lock would not do: a signal that comes just before the thread
    sleeps on it, or that another thread happens to take, would not wake it up.
    """
    outcome: list[T] = []
    error: list[BaseException] = []
    with _pipe() as (reader, writer):

        def work() -> None:
            try:
                outcome.append(action())
            except BaseException as exc:  # noqa: BLE001 - raised again in the main thread
                error.append(exc)
            finally:
                os.write(writer, DONE)

        worker = threading.Thread(target=work, name="job", daemon=True)
        with _signals_to(writer):
            worker.start()
            _wait(reader, cancel, take or (lambda signum: False))
            worker.join()
    if error:
        raise error[0]
    return outcome[0]


def _wait(reader: int, cancel: Cancel, take: Callable[[int], bool]) -> None:
    first = math.inf  # when the first SIGINT came
    while (byte := os.read(reader, 1)) != DONE:
        signum = byte[0] - ASKED
        if signum not in SIGNALS or take(signum):
            continue
        if signum == signal.SIGINT:
            now = time.monotonic()
            first = min(first, now)
            if now - first > SAME_SECONDS:
                _leave_at_once()
        if not cancel.cancelled:
            name = signal.Signals(signum).name
            print(f"v2v: {name}: stopping and cleaning up", file=sys.stderr, flush=True)
            cancel.cancel()


def _leave_at_once() -> None:
    """The user is in a hurry. Servers and tools die with us; what was written is in the journal."""
    print(
        "\033[?25hv2v: left at once; `v2v jobs` tells what is unfinished"
        if sys.stderr.isatty()
        else "v2v: left at once; `v2v jobs` tells what is unfinished",
        file=sys.stderr,
        flush=True,
    )
    os._exit(130)


@contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)  # a signal handler must not wait
    try:
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


@contextmanager
def _signals_to(writer: int) -> Iterator[None]:
    """Signals wake who reads the pipe of `writer`, and write there what was asked.

    Python's wake-up alone would not do: a process that a library forked shares the pipe, and tells
    there of the same Ctrl-C once more; but it runs no Python.
    """

    def handle(number: int, frame: object) -> None:
        with suppress(BlockingIOError):
            os.write(writer, bytes([ASKED + number]))

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for signum in SIGNALS:
        if signum != signal.SIGHUP or before[signum] is not signal.SIG_IGN:  # nohup is respected
            signal.signal(signum, handle)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        signal.set_wakeup_fd(wakeup)
