"""--key and --keys-from-stdin: passphrases become files in memory, which end with this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from v2v.errors import HostError, UsageError


@contextmanager
def key_files(given: Sequence[str], *, from_stdin: bool) -> Iterator[tuple[str, ...]]:
    """Give ID:file:PATH for every key; a text is in a file for the length of the block."""
    with ExitStack() as files:
        keys = [_file_of(word, files) for word in given]
        if from_stdin:
            lines = sys.stdin.read().splitlines()
            keys += [f"all:file:{_in_memory(line, files)}" for line in lines]
        yield tuple(keys)


def _file_of(word: str, files: ExitStack) -> str:
    identity, _, selector = word.partition(":")
    kind, _, value = selector.partition(":")
    if kind == "clevis":
        raise UsageError(
            f"--key {identity}:clevis is not supported yet",
            id="option-unsupported",
            hint=f"give a passphrase: --key {identity}:file:PATH",
        )
    if not identity or kind not in ("file", "key") or not value:
        # The word may hold a passphrase: it is not repeated.
        raise UsageError(
            f"--key {identity}:...: not ID:file:PATH", id="key-form", hint="see `v2v convert -h`"
        )
    if kind == "key":
        path = _in_memory(value, files)
        print(
            f"v2v: warning: --key {identity}:key: other users of this host see the passphrase; "
            f"use --key {identity}:file:PATH",
            file=sys.stderr,
        )
    else:
        path = Path(value).expanduser().absolute()
        if not os.access(path, os.R_OK):
            raise HostError(f"--key {identity}:file:{value}: cannot be read", id="key-unreadable")
    return f"{identity}:file:{path}"


def _in_memory(text: str, files: ExitStack) -> Path:
    """A file of this process alone (memfd_create(2)): not even kill -9 leaves it behind."""
    fd = os.memfd_create("v2v-key")
    files.callback(os.close, fd)
    os.write(fd, text.encode("utf-8", "surrogateescape"))
    return Path(f"/proc/{os.getpid()}/fd/{fd}")  # not "self": a resume must not find its own
