"""What Cinder tells of one volume, and the metadata by which a job knows its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from v2v.errors import TargetError
from v2v.hardware import valid_uuid
from v2v.texts import clean_name

# Metadata of a volume.
JOB, DISK, STATE = "v2v_job", "v2v_disk_index", "v2v_state"
TEMPORARY = "temporary"  # the state until it is handed over


@dataclass(frozen=True, slots=True)
class Volume:
    id: str
    name: str
    status: str
    gib: int
    encrypted: bool
    servers: tuple[str, ...]  # that it is attached to
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def is_temporary(self) -> bool:
        return self.metadata.get(STATE) == TEMPORARY


def read_volume(found: Any) -> Volume:
    """Of what the library gives, as far as it makes sense."""
    try:
        identifier = valid_uuid(str(found.id))
        if identifier is None:
            raise ValueError(f"{found.id!r} is no id of a volume")
        servers = (valid_uuid(str(one.get("server_id"))) for one in found.attachments or [])
        return Volume(
            id=identifier,
            name=str(found.name or ""),
            status=clean_name(str(found.status)),
            gib=int(found.size or 0),
            encrypted=bool(found.is_encrypted),
            servers=tuple(one for one in servers if one is not None),
            metadata={str(key): str(word) for key, word in (found.metadata or {}).items()},
        )
    except (AttributeError, TypeError, ValueError) as exc:
        raise TargetError(
            f"Cinder tells of a volume what makes no sense: {clean_name(str(exc))}",
            id="target-answer",
            hint="see that -oc is the address of an OpenStack",
        ) from exc
