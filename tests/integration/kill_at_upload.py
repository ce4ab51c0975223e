"""Runs a job of -o rhv-upload that somebody else kills.

kill_at_upload.py JOBS IMAGE FLUSH KEY=WORD...

With FLUSH other than 0 it kills itself before it flushes the target for that time. KEY is an
option, as in -os=data.
"""

import itertools
import os
import signal
import sys
from pathlib import Path

import v2v
from v2v.copy import target as copy_target
from v2v.job import CopyOptions
from v2v.outputs._ovirt.imageio import ImageioSink
from v2v.types import MiB

jobs, image, flush_number, *words = sys.argv[1:]
copy_target.CHECKPOINT = 4 * MiB
copy_target.UNRECORDED = 8 * MiB
count = itertools.count(1)


def flush(self, whole=ImageioSink.flush) -> None:
    if next(count) == int(flush_number):
        os.kill(os.getpid(), signal.SIGKILL)
    whole(self)


ImageioSink.flush = flush
v2v.convert(
    image,
    output="rhv-upload",
    output_options=dict(word.split("=", 1) for word in words),
    conversion=v2v.ConversionOptions(convert=False),
    copy=CopyOptions(request_size=MiB),
    jobs=Path(jobs),
)
