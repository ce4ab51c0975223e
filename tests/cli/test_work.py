"""Jobs run in a worker thread; signals cancel them."""

from __future__ import annotations

import argparse
import io
import os
import signal
import subprocess
import sys
import threading
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from v2v import events
from v2v.cancel import Cancel
from v2v.cli import main, work
from v2v.errors import Cancelled, GuestError, V2VError
from v2v.events import Emit


def arguments(*words: str) -> argparse.Namespace:
    return main.parse(["resume", "x", *words])


def test_gives_what_the_action_gives() -> None:
    out = io.StringIO()
    value, watch = work.perform(arguments(), lambda emit, cancel: 42, stream=out)
    assert (value, watch.job) == (42, None)


def test_action_runs_outside_the_main_thread() -> None:
    """So that the main thread can take signals while a call into a library blocks."""
    seen, _ = work.perform(
        arguments(), lambda emit, cancel: threading.current_thread(), stream=io.StringIO()
    )
    assert seen is not threading.main_thread()


@pytest.mark.parametrize(("display", "told"), [("plain", 1), ("rich", 0)])
def test_times_that_people_saw_are_not_told_again(display: str, told: int) -> None:
    def action(emit: Emit, cancel: Cancel) -> None:
        emit(events.StepStarted(job="j", step="s", title="t"))
        emit(events.StepFinished(job="j", step="s", title="t", seconds=1.0))

    _, watch = work.perform(arguments("--progress", display), action, stream=io.StringIO())
    assert len(watch.steps) == told


def test_failure_is_raised_with_notes_on_how_to_go_on() -> None:
    def action(emit: Emit, cancel: Cancel) -> None:
        emit(events.JobStarted(job="j1", name="vm", folder="/jobs/j1"))
        emit(events.JobFailed(job="j1", error="e", message="m"))
        raise GuestError("m", id="e")

    with pytest.raises(V2VError) as caught:
        work.perform(arguments("-q"), action)
    assert caught.value.__notes__ == [
        "job folder: /jobs/j1",
        "to go on with the same options: v2v resume j1",
    ]


def test_failure_before_the_job_began_is_told_as_an_event() -> None:
    out = io.StringIO()

    def action(emit: Emit, cancel: Cancel) -> None:
        raise GuestError("m", id="e", hint="h")

    with pytest.raises(GuestError):
        work.perform(arguments("--json"), action, stream=out)
    assert '"event": "job-failed"' in out.getvalue()
    assert '"resumable": false' in out.getvalue()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_cancels_the_job(signum: int) -> None:
    before = signal.getsignal(signum)

    def action(emit: Emit, cancel: Cancel) -> None:
        os.kill(os.getpid(), signum)
        cancel.wait(30)

    with pytest.raises(Cancelled):
        work.perform(arguments("-q"), action)
    assert signal.getsignal(signum) is before


def test_signal_calls_what_unblocks_the_job() -> None:
    """As a call into the appliance is unblocked."""
    unblocked = threading.Event()

    def action(emit: Emit, cancel: Cancel) -> bool:
        with cancel.calling(unblocked.set):
            os.kill(os.getpid(), signal.SIGTERM)
            return unblocked.wait(30)

    assert work.perform(arguments("-q"), action)[0]


STUBBORN = """
import os, signal, sys, threading
from v2v.cli import work
from v2v.cancel import Cancel

def take(signum):
    came.release()
    return False

def action():
    os.kill(os.getpid(), signal.SIGINT)
    cancel._event.wait()
    came.acquire()
    threading.Event().wait({after})
    os.kill(os.getpid(), {second})
    came.acquire()

work.SAME_SECONDS = {same}
came = threading.Semaphore(0)
cancel = Cancel()
work.in_worker(action, cancel, take)
"""


def stubborn(
    second: str, *, after: float = 0.0, same: float = 600.0
) -> subprocess.CompletedProcess[str]:
    """A job that is interrupted, and gets a second signal before it ends."""
    code = STUBBORN.format(second=second, after=after, same=same)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


def test_second_interrupt_leaves_at_once() -> None:
    done = stubborn("signal.SIGINT", after=2 * work.SAME_SECONDS, same=work.SAME_SECONDS)
    assert done.returncode == 130
    assert "left at once" in done.stderr


def test_one_interrupt_that_comes_twice_is_one() -> None:
    """`timeout -s INT` and other programs send it to us, and to the group we are in."""
    done = stubborn("signal.SIGINT")
    assert done.returncode == 0
    assert done.stderr.count("stopping and cleaning up") == 1


def test_termination_after_an_interrupt_is_patient() -> None:
    """A service manager sends several signals; only a person's second Ctrl-C is impatience."""
    done = stubborn("signal.SIGTERM", after=2 * work.SAME_SECONDS, same=work.SAME_SECONDS)
    assert done.returncode == 0
    assert done.stderr.count("stopping and cleaning up") == 1


def test_one_interrupt_is_one_however_slow_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that takes it may stand still between any two looks at the clock."""
    clock = count(step=2 * work.SAME_SECONDS)
    monkeypatch.setattr(work, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(work, "_leave_at_once", lambda: pytest.fail("it left at once"))

    def action(emit: Emit, cancel: Cancel) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        cancel.wait(30)

    with pytest.raises(Cancelled):
        work.perform(arguments("-q"), action)


def test_nohup_is_respected() -> None:
    code = (
        "import os, signal\n"
        "from v2v.cli import work\nfrom v2v.cancel import Cancel\n"
        "c = Cancel()\n"
        "work.in_worker(lambda: os.kill(os.getpid(), signal.SIGHUP), c)\n"
        "raise SystemExit(7 if c.cancelled else 0)"
    )
    argv = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", sys.executable, "-c", code]
    assert subprocess.run(argv, timeout=60, check=False).returncode == 0


def test_unexpected_error_names_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    error = ValueError("of all things")
    error.add_note("job folder: /jobs/j1")
    main.report_unexpected(error, verbose=False)
    told = capsys.readouterr().err
    assert told.startswith("v2v: error: unexpected ValueError: of all things\n")
    assert "log/v2v.log" in told
    assert "job folder: /jobs/j1" in told
    assert "Traceback" not in told
    main.report_unexpected(error, verbose=True)
    assert "Traceback" in capsys.readouterr().err or "ValueError" in told


def test_machine_readable_messages_go_to_their_file(tmp_path: Path) -> None:
    log = tmp_path / "messages"
    args = main.parse(["convert", "x", f"--machine-readable=file:{log}"])
    out = io.StringIO()

    def action(emit: Emit, cancel: Cancel) -> None:
        emit(events.StepStarted(job="j", at=0.0, step="s", title="Converting the guest"))
        emit(events.Warned(job="j", at=1.5, id="w", text="careful"))

    work.perform(args, action, stream=out)
    assert log.read_text().splitlines() == [
        '{"message": "Converting the guest", "timestamp": "1970-01-01T00:00:00+00:00", '
        '"type": "message"}',
        '{"message": "careful", "timestamp": "1970-01-01T00:00:01.500000+00:00", '
        '"type": "warning"}',
    ]
    assert "Converting the guest" in out.getvalue()  # people are told as well


def test_ctrl_c_before_there_is_a_job_just_ends_it() -> None:
    """Python's exception would be lost in imports, or leave their locks behind."""
    code = (
        "import os, signal\n"
        "from v2v.cli import start\n"
        "start.quit_on_interrupt()\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")


def test_the_program_begins_with_it() -> None:
    metadata = Path(__file__).parents[2] / "pyproject.toml"
    assert 'v2v = "v2v.cli.start:main"' in metadata.read_text()
