"""The first lines of the `v2v` program: Ctrl-C before there is anything to clean up.

Python makes an exception of it, wherever the program is. In the middle of an import it is lost, or
leaves an import lock behind, for which the job's thread then waits for ever. So until a job takes
the signals (see work.py) Ctrl-C simply ends the process.
"""

from __future__ import annotations

import signal
from typing import NoReturn


def main() -> NoReturn:
    quit_on_interrupt()
    from v2v.cli.main import main as run

    run()


def quit_on_interrupt() -> None:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not if it is ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
