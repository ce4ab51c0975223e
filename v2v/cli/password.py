"""A password that is asked for on the terminal, for commands that keep nothing."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from v2v.job import ModuleChoice

FLAG = "-ip"
ASKING = ("vsphere",)  # inputs that cannot do without one


@contextmanager
def known(choice: ModuleChoice) -> Iterator[ModuleChoice]:
    """With a file that holds the password, if it is needed, not given, and somebody can be asked.

    The file is in memory alone, and gone when the block ends.
    """
    if choice.mode not in ASKING or FLAG in choice.options or not sys.stdin.isatty():
        yield choice
        return
    text = getpass.getpass(f"password for {choice.options.get('-ic', choice.mode)}: ")
    fd = os.memfd_create("password")
    try:
        os.write(fd, text.encode(errors="surrogateescape"))
        path = f"/proc/{os.getpid()}/fd/{fd}"
        yield replace(choice, options=choice.options | {FLAG: path})
    finally:
        os.close(fd)
