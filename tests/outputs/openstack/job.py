"""Runs a job of one output: job.py WORDS, which are JSON {mode, words, guest, jobs, kill}.

`kill` "copy": it kills itself with SIGKILL at its third write. Else others do it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from itertools import count
from pathlib import Path
from typing import Any

import v2v
from v2v.copy.sinks import FileSink


def die_in_copy() -> None:
    number, write = count(1), FileSink.write

    def dying(*arguments: Any) -> None:
        if next(number) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        write(*arguments)

    FileSink.write = dying  # type: ignore[method-assign]
    FileSink.clone = lambda *arguments: False  # type: ignore[method-assign]  nothing by the kernel


def main(asked: dict[str, Any]) -> None:
    if asked["kill"] == "copy":
        die_in_copy()
    v2v.convert(
        asked["guest"],
        output=asked["mode"],
        output_options=asked["words"],
        conversion=v2v.ConversionOptions(convert=False),
        jobs=Path(asked["jobs"]),
    )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
