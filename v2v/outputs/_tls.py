"""Certificates that the user names."""

from __future__ import annotations

import ssl
from pathlib import Path

from v2v.errors import UsageError


def check_cafile(flag: str, file: Path | None) -> None:
    """UsageError for a file that holds no certificates."""
    if file is None:
        return
    try:
        ssl.create_default_context(cafile=file)
    except OSError as exc:  # ssl.SSLError is one
        raise UsageError(
            f"{flag} {file}: {exc.strerror or 'holds no certificates'}",
            id="tls-files",
            hint="name a file of certificates in PEM",
        ) from exc
