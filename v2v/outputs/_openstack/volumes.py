"""A job's volumes in Cinder.

Each carries from the request that creates it on which job and which disk it is of, so that a job
that was killed at any moment finds them again.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice, repeat
from typing import Any

from v2v.errors import TargetError
from v2v.hardware import valid_uuid
from v2v.outputs._openstack.cloud import Cloud
from v2v.outputs._openstack.errors import is_missing
from v2v.outputs._openstack.properties import gibibytes
from v2v.run import Run
from v2v.texts import clean

CINDER = {"block-storage": "Cinder"}

# Metadata of a volume.
JOB, DISK, STATE = "v2v_job", "v2v_disk_index", "v2v_state"
TEMPORARY = "temporary"  # the state until it is handed over

READY_SECONDS = 600.0  # until a volume is made, attached, detached or deleted
MOST_VOLUMES = 100_000  # of a project that are looked at
PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)  # seconds between two looks; the last one repeats
ATTACHING = ("attaching", "reserved")
UNSETTLED = ("creating", "detaching", *ATTACHING)


@dataclass(frozen=True, slots=True)
class Volume:
    id: str
    name: str
    status: str
    gib: int
    servers: tuple[str, ...]  # that it is attached to
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def index(self) -> int:
        """Of the disk; -1 when that is not known."""
        text = self.metadata.get(DISK, "")
        return int(text) if text.isdecimal() else -1

    @property
    def is_temporary(self) -> bool:
        return self.metadata.get(STATE) == TEMPORARY


class Volumes:
    """What `run` does to volumes. It stops when it is cancelled."""

    def __init__(self, cloud: Cloud, run: Run) -> None:
        self._cloud = cloud
        self._run = run

    def all(self) -> list[Volume]:
        """The project's."""

        def look(connection: Any) -> list[Volume]:
            found = connection.block_storage.volumes(details=True)
            return [_volume(one) for one in islice(found, MOST_VOLUMES)]

        return self._cloud.ask("Cinder: volumes", look, self._run)

    def own(self) -> list[Volume]:
        """Those of the job, by disk."""
        mine = [one for one in self.all() if one.metadata.get(JOB) == self._run.job_id]
        return sorted(mine, key=lambda one: one.index)

    def find(self, volume: str) -> Volume | None:
        def look(connection: Any) -> Volume:
            return _volume(connection.block_storage.get_volume(volume))

        try:
            return self._cloud.ask(f"Cinder: volume {volume}", look, self._run)
        except TargetError as exc:
            if is_missing(exc):
                return None
            raise

    def get(self, volume: str) -> Volume:
        found = self.find(volume)
        if found is None:
            raise TargetError(
                f"Cinder: volume {volume} of this job is gone",
                id="target-lost",
                hint="start the migration again",
            )
        return found

    def check_type(self, name: str) -> None:
        try:
            self._cloud.ask(
                f"Cinder: volume type {name}",
                lambda c: c.block_storage.find_type(name, ignore_missing=False),
                self._run,
            )
        except TargetError as exc:
            if not is_missing(exc):
                raise
            raise TargetError(
                f"Cinder has no volume type {name}",
                id="target-storage",
                hint="`openstack volume type list` shows them; choose with -os, or leave -os out",
            ) from exc

    def check_quota(self, sizes: Sequence[int]) -> None:
        """Refuse volumes for disks of `sizes` bytes (0: not known) that the quotas do not leave
        room for. Those that the job has already are replaced."""
        own = [one for one in self.own() if one.is_temporary]
        limits = self._cloud.ask(
            "Cinder: limits", lambda c: c.block_storage.get_limits().absolute, self._run
        )
        _check_limit(
            "volumes", limits.max_total_volumes, limits.total_volumes_used, len(own), len(sizes)
        )
        _check_limit(
            "gigabytes",
            limits.max_total_volume_gigabytes,
            limits.total_gigabytes_used,
            sum(one.gib for one in own),
            sum(gibibytes(size) for size in sizes),
        )

    def create(
        self, index: int, size: int, *, kind: str | None, zone: str | None, guest: str
    ) -> Volume:
        """An empty volume for disk `index` of `size` bytes. None: as the cloud chooses."""
        job = self._run.job_id
        attributes: dict[str, Any] = {
            "name": f"v2v-{job}-disk{index + 1}",
            "description": f"temporary volume of v2v job {job}",
            "size": gibibytes(size),
            "metadata": {JOB: job, DISK: str(index), STATE: TEMPORARY, "v2v_guest_name": guest},
        }
        if kind is not None:
            attributes["volume_type"] = kind
        if zone is not None:
            attributes["availability_zone"] = zone
        what = f"Cinder: volume for disk {index + 1}"
        self._run.cancel.check()
        made = self._cloud.change(
            what, lambda c: _volume(c.block_storage.create_volume(**attributes))
        )
        return self.wait(made.id, "available", passing=("creating",), doing=what)

    def wait(self, volume: str, status: str, *, passing: Collection[str], doing: str) -> Volume:
        """Until it has that status; any that is not `passing` is an error."""
        pauses, deadline = _pauses(), time.monotonic() + READY_SECONDS
        while (found := self.get(volume)).status != status:
            if found.status not in passing:
                raise TargetError(
                    f"{doing}: volume {volume} became {found.status!r}, not {status!r}",
                    id="target-state",
                    hint=f"`openstack volume show {volume}` and the cloud's administrator may tell "
                    "why",
                )
            self._pause(pauses, deadline, f"{doing}: volume {volume} is still {found.status!r}")
        return found

    def delete(self, volume: str) -> None:
        """Returns when it is gone."""
        what = f"Cinder: deleting volume {volume}"
        self._cloud.change(what, lambda c: c.block_storage.delete_volume(volume))
        pauses, deadline = _pauses(), time.monotonic() + READY_SECONDS
        while (found := self.find(volume)) is not None:
            if found.status not in ("deleting", "available", "error"):
                raise TargetError(
                    f"{what}: it became {found.status!r}",
                    id="target-state",
                    hint="the cloud's administrator can delete it",
                )
            self._pause(pauses, deadline, f"{what}: it is still there")

    def attach(self, volume: str, server: str) -> None:
        """Returns when the server has it; the device may take a moment longer."""
        what = f"Nova: attaching volume {volume} to {server}"
        found = self._settled(volume) or self.get(volume)
        if server in found.servers and found.status == "in-use":
            return
        if found.servers:  # a job that was killed, and goes on in another server
            self.detach([volume])
        self._run.cancel.check()

        def act(connection: Any) -> None:
            full = connection.block_storage.get_volume(volume)
            connection.compute.create_volume_attachment(server, volume=full)

        self._cloud.change(what, act)
        self.wait(volume, "in-use", passing=ATTACHING, doing=what)

    def detach(self, volumes: Sequence[str]) -> None:
        """From whatever servers have them. Returns when they are free; those gone are no matter."""
        found = [one for volume in volumes if (one := self._settled(volume)) is not None]
        for one in found:
            for server in one.servers:
                self._detach(one.id, server)
        for one in found:
            if one.servers:
                what = f"Nova: detaching volume {one.id}"
                self.wait(one.id, "available", passing=("in-use", "detaching"), doing=what)

    def _settled(self, volume: str) -> Volume | None:
        """Once what a killed job began has ended; None when the volume is gone."""
        pauses, deadline = _pauses(), time.monotonic() + READY_SECONDS
        while (found := self.find(volume)) is not None and found.status in UNSETTLED:
            self._pause(pauses, deadline, f"Cinder: volume {volume} is still {found.status!r}")
        return found

    def _detach(self, volume: str, server: str) -> None:
        def act(connection: Any) -> None:
            full = connection.block_storage.get_volume(volume)
            connection.compute.delete_volume_attachment(server, full)

        self._cloud.change(f"Nova: detaching volume {volume} from {server}", act)

    def hand_over(
        self, volume: str, *, name: str, description: str, metadata: dict[str, str]
    ) -> None:
        """One request gives it its name and takes the mark off that lets `discard` remove it."""
        attributes = {"name": name, "description": description, "metadata": metadata}
        self._cloud.change(
            f"Cinder: volume {volume}",
            lambda c: c.block_storage.update_volume(volume, **attributes),
        )

    def make_bootable(self, volume: str, properties: dict[str, str]) -> None:
        def act(connection: Any) -> None:
            connection.block_storage.set_volume_bootable_status(volume, True)
            connection.block_storage.set_volume_image_metadata(volume, **properties)

        self._cloud.change(f"Cinder: volume {volume}", act)

    def _pause(self, pauses: Any, deadline: float, trouble: str) -> None:
        if time.monotonic() > deadline:
            raise TargetError(
                f"{trouble} after {READY_SECONDS:.0f} s",
                id="target-timeout",
                hint="when the cloud's administrator has seen to it, continue with `v2v resume`",
            )
        self._run.cancel.wait(next(pauses))


def _pauses() -> Any:
    return chain(PAUSES, repeat(PAUSES[-1]))


def _volume(found: Any) -> Volume:
    """What the server tells of one, as far as it makes sense."""
    try:
        identifier = valid_uuid(str(found.id))
        if identifier is None:
            raise ValueError(f"{found.id!r} is no id of a volume")
        servers = (valid_uuid(str(one.get("server_id"))) for one in found.attachments or [])
        return Volume(
            id=identifier,
            name=str(found.name or ""),
            status=str(found.status),
            gib=int(found.size or 0),
            servers=tuple(one for one in servers if one is not None),
            metadata={str(key): str(word) for key, word in (found.metadata or {}).items()},
        )
    except (AttributeError, TypeError, ValueError) as exc:
        raise TargetError(
            f"Cinder tells of a volume what makes no sense: {clean(str(exc))}",
            id="target-answer",
            hint="see that -oc is the address of an OpenStack",
        ) from exc


def _check_limit(what: str, most: Any, used: Any, own: int, wanted: int) -> None:
    if not isinstance(most, int) or most < 0:  # -1: there is none
        return
    left = most - int(used or 0) + own
    if wanted > left:
        raise TargetError(
            f"Cinder: the disks need {wanted} {what}, the project's quota leaves {max(left, 0)}",
            id="target-quota",
            hint="raise the project's quota, delete what is not needed, or use another project",
        )
