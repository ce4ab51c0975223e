"""Libraries that only some outputs need: extras of the package, imported when they are used."""

from __future__ import annotations

import importlib
from typing import Any

from v2v.errors import HostError


def require(module: str, *, extra: str, purpose: str) -> Any:
    """Import a module of an extra. `purpose` begins the error: "-o rhv-upload"."""
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        raise HostError(
            f"{purpose} needs the Python module {module}: {exc}",
            id="binding-missing",
            hint=f"pip install 'v2v[{extra}]'",
        ) from exc
