"""Runs a job that kills itself with SIGKILL at one moment: kill_at.py MOMENT JOBS GUEST TARGET
[--no-convert] [--qcow2] [--checkpoint BYTES] [-io KEY=VALUE]... [--output MODE]
[--word FLAG=VALUE]...

MOMENT is EVENT:STEP, as in step-started:guest, or flush:N, before the target is flushed for the
N-th time. With MOMENT `never` the job runs to its end. The process is its own killer because only
the job's own threads can stop at an exact moment. --checkpoint: how much is written between two
records of what is safe on the target. --word: an option of the output.
"""

import itertools
import os
import signal
import sys
from pathlib import Path

import v2v
from v2v.copy import target as copy_target
from v2v.copy.sinks import FileSink, NbdSink
from v2v.events import Event

moment, jobs, guest, target, *rest = sys.argv[1:]


def emit(event: Event) -> None:
    if f"{event.event}:{getattr(event, 'step', '')}" == moment:
        os.kill(os.getpid(), signal.SIGKILL)


def kill_at_flush(number: int) -> None:
    count = itertools.count(1)
    for kind in (FileSink, NbdSink):

        def flush(self, whole=kind.flush) -> None:
            if next(count) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            whole(self)

        kind.flush = flush


if moment.startswith("flush:"):
    kill_at_flush(int(moment.partition(":")[2]))
if "--checkpoint" in rest:
    copy_target.CHECKPOINT = int(rest[rest.index("--checkpoint") + 1])
    copy_target.UNRECORDED = 2 * copy_target.CHECKPOINT
words = {
    key: value
    for flag, word in itertools.pairwise(rest)
    if flag == "--word"
    for key, _, value in [word.partition("=")]
}
v2v.convert(
    guest,
    output=rest[rest.index("--output") + 1] if "--output" in rest else "local",
    storage=target,
    input_options={
        f"-io {key}": value
        for flag, word in itertools.pairwise(rest)
        if flag == "-io"
        for key, _, value in [word.partition("=")]
    },
    name="guest",
    output_options={**words, **({"-of": "qcow2"} if "--qcow2" in rest else {})},
    conversion=v2v.ConversionOptions(convert="--no-convert" not in rest),
    jobs=Path(jobs),
    emit=emit,
)
