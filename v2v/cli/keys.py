"""--key and --keys-from-stdin: passphrases become files that only their owner reads."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from v2v.errors import HostError, UsageError


@contextmanager
def key_files(given: Sequence[str], *, from_stdin: bool) -> Iterator[tuple[str, ...]]:
    """Give ID:file:PATH for every key; a text is in a private file for the length of the block."""
    with tempfile.TemporaryDirectory(prefix="v2v-keys-") as folder:  # mode 0700
        keys = [_file_of(word, Path(folder), index) for index, word in enumerate(given)]
        if from_stdin:
            for index, line in enumerate(sys.stdin.read().splitlines()):
                path = _write(Path(folder) / f"stdin-{index}", line)
                keys.append(f"all:file:{path}")
        yield tuple(keys)


def _file_of(word: str, folder: Path, index: int) -> str:
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
        path = _write(folder / f"key-{index}", value)
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


def _write(path: Path, text: str) -> Path:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as stream:
        stream.write(text)
    return path
