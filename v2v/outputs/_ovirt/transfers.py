"""Image transfers: what opens a disk at the engine for writing.

A transfer locks its disk. To cancel it removes the disk; to finalize it keeps what was written, and
lets the disk go: also half of one, which another transfer may go on with. So transfers are always
finalized, unless the disk is to be removed, and never resumed: a host that was restarted has
forgotten the ticket of a transfer, and a new transfer gets a new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from v2v.errors import TargetError
from v2v.outputs._ovirt import disks
from v2v.outputs._ovirt.engine import Engine
from v2v.outputs._ovirt.options import UploadOptions
from v2v.outputs._ovirt.places import Transfer
from v2v.types import TargetDisk

OPEN_SECONDS = 300.0  # a host prepares the volume, and starts a server for it
CLOSE_SECONDS = 600.0  # and checks the image
# Until the engine pauses a transfer; a sink has its daemon hear of it much more often. As long the
# daemon waits for the rest of a request whose client has lost its power, and no transfer can end
# meanwhile: not a week, and not for ever, which 0 is to the engine.
INACTIVITY_SECONDS = 2 * 3600

FINISHED = ("finished_success", "finished_failure", "finished_cleanup", "cancelled")
ENDING = (
    "cancelled_system",
    "cancelled_user",
    "finalizing_cleanup",
    "finalizing_failure",
    "finalizing_success",
)
OPENING = ("initializing", "resuming", "transferring")
PAUSED = ("paused_system", "paused_user")


def phase(transfer: Any) -> str:
    return getattr(transfer.phase, "value", None) or "unknown"


def service(system: Any, transfer: str) -> Any:
    return system.image_transfers_service().image_transfer_service(transfer)


def find(engine: Engine, transfer: str) -> Any | None:
    return engine.find("look at the image transfer", lambda s: service(s, transfer).get())


def of_disks(engine: Engine, uuids: Sequence[str]) -> list[Any]:
    """The transfers to those of these disks that are the job's, as far as they are not over."""
    listed = engine.call("list the image transfers", lambda s: s.image_transfers_service().list())
    open_ones = [one for one in listed if _disk_of(one) in uuids and phase(one) not in FINISHED]
    return [one for one in open_ones if disks.find_own(engine, _disk_of(one) or "")]


def start(engine: Engine, uuid: str, host: str | None) -> str:
    """Ask for a transfer to a disk that has none; its id. `ready` tells when it is open."""
    types = engine.types
    wanted = types.ImageTransfer(
        disk=types.Disk(id=uuid),
        direction=types.ImageTransferDirection.UPLOAD,
        format=types.DiskFormat.RAW,  # what we send; the host writes the disk's own format
        inactivity_timeout=INACTIVITY_SECONDS,
        timeout_policy=types.ImageTransferTimeoutPolicy.PAUSE,  # the others remove the disk
        host=types.Host(id=host) if host else None,
    )
    added = engine.make(
        "open an image transfer",
        lambda s: s.image_transfers_service().add(wanted),
        lambda: _opening(engine, uuid),
    )
    if added is None:
        raise TargetError(
            f"{engine.where.host}: the disk {uuid} is gone",
            id="target-lost",
            hint="the events in the engine's portal tell why",
        )
    return str(added.id)


def _opening(engine: Engine, uuid: str) -> Any | None:
    """An upload that has begun, and is not at its end."""
    for one in of_disks(engine, [uuid]):
        if phase(one) in OPENING and getattr(one.direction, "value", None) != "download":
            return one
    return None


def ready(engine: Engine, transfer: str, disk: TargetDisk, options: UploadOptions) -> Transfer:
    """Where to write, once it can be written."""

    def look() -> Any | None:
        found = find(engine, transfer)
        if found is None or phase(found) not in OPENING:
            what = "is gone" if found is None else f"is {phase(found).replace('_', ' ')}"
            raise TargetError(
                f"{engine.where.host}: the image transfer to the disk {disk.working} {what}",
                id="transfer-failed",
                hint="the events in the engine's portal tell why; then `v2v resume`",
            )
        return found if phase(found) == "transferring" else None

    found = engine.wait("an image transfer does not begin", look, OPEN_SECONDS)
    direct = options.direct and not options.proxy
    url, proxy = (found.transfer_url, found.proxy_url) if direct else (found.proxy_url, None)
    for one in (url or "", proxy or url or ""):
        if not one.startswith("https://"):
            raise TargetError(
                f"{engine.where.host}: the image transfer has no address of HTTPS",
                id="transfer-failed",
                hint="turn on TLS for ovirt-imageio on the host"
                if direct
                else "leave out -oo rhv-proxy",
            )
    return Transfer(
        url=url,
        proxy_url=proxy,
        cafile=options.cafile,
        verify=options.verify_peer,
        size=disk.size,
    )


def settle(engine: Engine, uuids: Sequence[str], seconds: float = CLOSE_SECONDS) -> list[Any]:
    """The disks, with what was written to them, and open to nobody any more.

    TargetError target-lost when one is gone, or was given up.
    """
    open_ones = of_disks(engine, uuids)
    for one in open_ones:
        _finalize(engine, one, min(seconds, OPEN_SECONDS))
    for one in open_ones:
        _wait_over(engine, one.id, seconds)
    return [disks.wait_ok(engine, uuid, seconds) for uuid in uuids]


def cancel(engine: Engine, uuids: Sequence[str]) -> None:
    """End all transfers to disks that are to be removed; the engine may remove them now."""
    open_ones = of_disks(engine, uuids)
    for one in open_ones:
        if phase(one) not in ENDING:
            engine.change("cancel the transfer", lambda s, t=one.id: service(s, t).cancel())  # type: ignore[misc]
    for one in open_ones:
        _wait_over(engine, one.id)


def _finalize(engine: Engine, transfer: Any, seconds: float) -> None:
    def begun() -> Any | None:
        found = find(engine, transfer.id)
        return (found or transfer) if found is None or phase(found) != "initializing" else None

    found = engine.wait("an image transfer does not begin", begun, seconds)
    if phase(found) in ("transferring", "resuming", *PAUSED):
        engine.change("finalize the transfer", lambda s: service(s, transfer.id).finalize())


def _wait_over(engine: Engine, transfer: str, seconds: float = CLOSE_SECONDS) -> None:
    """Older engines forget a transfer as soon as it is over."""

    def over() -> bool | None:
        found = find(engine, transfer)
        return True if found is None or phase(found) in FINISHED else None

    engine.wait("an image transfer does not end", over, seconds)


def _disk_of(transfer: Any) -> str | None:
    """Engines name the disk, its image, or both."""
    for part in (transfer.disk, transfer.image):
        if part is not None and part.id:
            return str(part.id)
    return None
