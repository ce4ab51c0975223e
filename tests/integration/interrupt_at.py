"""Runs the `v2v` command, to which Ctrl-C comes at one moment: interrupt_at.py STEP WORD...

It comes to the whole group, as from a terminal, when the step is told to have started; and the
step waits until the command has taken it.
"""

import os
import signal
import sys

from v2v.cli import main, start, work
from v2v.events import StepStarted

step, *words = sys.argv[1:]
cancels = []
in_worker, tee = work.in_worker, work._tee


def noting(action, cancel, take=None):
    cancels.append(cancel)
    return in_worker(action, cancel, take)


def interrupting(sinks):
    tell = tee(sinks)

    def emit(event):
        tell(event)
        if isinstance(event, StepStarted) and event.step == step:
            os.killpg(os.getpgrp(), signal.SIGINT)
            cancels[0]._event.wait()

    return emit


work.in_worker, work._tee = noting, interrupting
start.quit_on_interrupt()
main.main(words)
