"""Runs a job, or `undo`, that kills itself with SIGKILL at one moment of changing its source.

    kill_at_source.py MOMENT JOBS convert URI PASSWORD_FILE CAFILE VM RUNNING TARGET
    kill_at_source.py MOMENT JOBS undo JOB

MOMENT: `asked:N`, before the source is asked for its N-th change; `done:N`, when that is done and
not yet in the journal; EVENT:STEP, as in step-started:copied:0; `never`.
"""

import itertools
import os
import signal
import sys
from pathlib import Path

import v2v
from v2v.events import Event
from v2v.inputs._vsphere import changes

moment, jobs, verb, *rest = sys.argv[1:]
numbers = itertools.count(1)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def emit(event: Event) -> None:
    if f"{event.event}:{getattr(event, 'step', '')}" == moment:
        die()


def watched(change):
    def wrapper(*words, **more):
        number = next(numbers)
        if moment == f"asked:{number}":
            die()
        result = change(*words, **more)
        if moment == f"done:{number}":
            die()
        return result

    return wrapper


changes._do = watched(changes._do)
changes._shut_down = watched(changes._shut_down)
if verb == "undo":
    v2v.undo(rest[0], jobs=Path(jobs), emit=emit)
else:
    uri, password, cafile, vm, running, target = rest
    v2v.convert(
        vm,
        input="vsphere",
        input_options={
            "-ic": uri,
            "-ip": password,
            "-io cafile": cafile,
            "-io running": running,
        },
        storage=target,
        name="copy",
        conversion=v2v.ConversionOptions(convert=False),
        jobs=Path(jobs),
        emit=emit,
    )
