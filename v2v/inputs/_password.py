"""The file that -ip names."""

from __future__ import annotations

from pathlib import Path

from v2v.errors import UsageError


def read_password(file: Path) -> str:
    """The first line, as nbdkit reads it."""
    try:
        return file.read_text(errors="surrogateescape").split("\n")[0]
    except OSError as exc:
        raise UsageError(
            f"-ip {file}: cannot be read: {exc.strerror}",
            id="password-file",
            hint="name a file whose first line is the password",
        ) from exc
