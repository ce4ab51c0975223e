"""What messages about OVF descriptors share."""

from __future__ import annotations

from collections.abc import Sequence

from v2v.errors import SourceError
from v2v.texts import clean, some

MAX_DEVICES = 1000  # of each kind
SHOWN = 80  # characters of a stranger's word


def shown(text: str) -> str:
    """A stranger's word in a message."""
    return clean(text[:SHOWN]) + ("..." if len(text) > SHOWN else "")


def listed(texts: Sequence[str]) -> str:
    return some([shown(text) for text in texts])


def invalid(name: str, why: str) -> SourceError:
    return SourceError(
        f"{name} is no valid descriptor: {why}",
        id="ovf-invalid",
        hint="export the VM again, or correct the descriptor",
    )


def too_many(name: str, what: str, count: int) -> SourceError:
    return SourceError(
        f"{name} tells of {count} {what}: more than {MAX_DEVICES}",
        id="ovf-too-many",
        hint="is it the description of one VM?",
    )
