"""Runs a job that kills itself with SIGKILL at one moment: kill_at.py MOMENT JOBS GUEST TARGET
[--no-convert].

MOMENT is EVENT:STEP, as in step-started:guest. With MOMENT `never` the job runs to its end. The
process is its own killer because only the job's own thread can stop at an exact moment.
"""

import os
import signal
import sys
from pathlib import Path

import v2v
from v2v.events import Event

moment, jobs, guest, target, *rest = sys.argv[1:]


def emit(event: Event) -> None:
    if f"{event.event}:{getattr(event, 'step', '')}" == moment:
        os.kill(os.getpid(), signal.SIGKILL)


v2v.convert(
    guest,
    storage=target,
    name="guest",
    conversion=v2v.ConversionOptions(convert="--no-convert" not in rest),
    jobs=Path(jobs),
    emit=emit,
)
