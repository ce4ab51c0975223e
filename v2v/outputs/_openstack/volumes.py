"""A job's volumes in Cinder.

Each carries from the request that creates it on which job and which disk it is of, so that a job
that was killed at any moment finds them again.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from functools import partial
from itertools import chain, islice, repeat
from typing import Any

from v2v.errors import TargetError
from v2v.outputs._openstack.cloud import Cloud
from v2v.outputs._openstack.errors import all_of
from v2v.outputs._openstack.properties import gibibytes
from v2v.outputs._openstack.volume import DISK, JOB, STATE, TEMPORARY, Volume, read_volume
from v2v.run import Run
from v2v.types import GiB, MiB

CINDER = {"block-storage": "Cinder"}

READY_SECONDS = 600.0  # until a volume is made, attached, detached or deleted
LUKS_HEADER = 16 * MiB  # as cryptsetup makes it; QEMU's own are smaller
MOST_VOLUMES = 100_000  # of a project that are looked at
PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)  # seconds between two looks; the last one repeats
ATTACHING = ("attaching", "reserved")
UNSETTLED = ("creating", "extending", "detaching", *ATTACHING)


class Volumes:
    """What `run` does to volumes. It stops when it is cancelled."""

    def __init__(self, cloud: Cloud, run: Run) -> None:
        self._cloud = cloud
        self._run = run

    def all(self) -> list[Volume]:
        """The project's."""

        def look(connection: Any) -> list[Volume]:
            found = connection.block_storage.volumes(details=True)
            return [read_volume(one) for one in islice(found, MOST_VOLUMES)]

        return self._cloud.ask("Cinder: volumes", look, self._run)

    def own(self) -> list[Volume]:
        """Those of the job."""
        return [one for one in self.all() if one.metadata.get(JOB) == self._run.job_id]

    def find(self, volume: str) -> Volume | None:
        def look(connection: Any) -> Volume:
            return read_volume(connection.block_storage.get_volume(volume))

        return self._cloud.find(f"Cinder: volume {volume}", look, self._run)

    def get(self, volume: str) -> Volume:
        found = self.find(volume)
        if found is None:
            raise TargetError(
                f"Cinder: volume {volume} of this job is gone",
                id="target-lost",
                hint="start the migration again",
            )
        return found

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
            what, lambda c: read_volume(c.block_storage.create_volume(**attributes))
        )
        found = self.wait(made.id, "available", passing=("creating",), doing=what)
        return self._roomy(found, size, what)

    def _roomy(self, volume: Volume, size: int, what: str) -> Volume:
        """An encrypted volume keeps its header to itself: a disk of whole GiB would not fit."""
        if not volume.encrypted or size + LUKS_HEADER <= volume.gib * GiB:
            return volume
        larger = volume.gib + 1
        self._cloud.change(what, lambda c: c.block_storage.extend_volume(volume.id, larger))
        return self.wait(volume.id, "available", passing=("extending",), doing=what)

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
        self._let_go(volume, server)
        self._run.cancel.check()

        def act(connection: Any) -> None:
            full = connection.block_storage.get_volume(volume)
            connection.compute.create_volume_attachment(server, volume=full)

        self._cloud.change(what, act)
        self.wait(volume, "in-use", passing=ATTACHING, doing=what)

    def _let_go(self, volume: str, server: str) -> None:
        """Nova knows of an attachment a little longer than Cinder, and makes no second one then."""
        what = f"Nova: volume {volume} of server {server}"

        def look(connection: Any) -> Any:
            return connection.compute.get_volume_attachment(server, volume)

        pauses, deadline = _pauses(), time.monotonic() + READY_SECONDS
        while self._cloud.find(what, look, self._run) is not None:
            self._pause(pauses, deadline, f"{what} is still attached")

    def detach(self, volumes: Collection[str]) -> None:
        """From whatever servers have them. Returns when they are free; those gone are no matter."""
        begun: list[Volume] = []

        def begin(volume: str) -> None:
            if (found := self._settled(volume)) is not None and found.servers:
                for server in found.servers:
                    self._detach(volume, server)
                begun.append(found)

        def end(volume: Volume) -> None:
            what = f"Nova: detaching volume {volume.id}"
            self.wait(volume.id, "available", passing=("in-use", "detaching"), doing=what)

        ends = (partial(end, one) for one in begun)  # looked at when all is begun
        all_of(chain((partial(begin, one) for one in volumes), ends))

    def remove(self, volumes: Collection[str]) -> None:
        """Detach and delete them."""

        def one(volume: str) -> None:
            self.detach([volume])
            self.delete(volume)

        all_of(partial(one, volume) for volume in volumes)

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
