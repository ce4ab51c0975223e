"""A job's images in Glance.

An image's id is chosen here and journaled before Glance hears of it, so that a job that was killed
at any moment finds it again.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from v2v.errors import CopyError, TargetError
from v2v.outputs._openstack.cloud import Cloud
from v2v.outputs._openstack.errors import all_of, raise_refusal
from v2v.outputs._staged import OutgoingFile
from v2v.run import Run

GLANCE = {"image": "Glance"}

MOST_NAMED = 1000  # images of one name that are looked at
DAY = 24 * 3600.0  # seconds that an upload may take
STORE_SECONDS = 1800.0  # that Glance may be silent: it may write to slow storage
HASH = "sha512"  # Glance's own choice, where its administrator made no other
HASHES = ("sha512", "sha384", "sha256", "sha1")  # that we compare, if Glance tells one of them
BLOCK = 1024 * 1024  # bytes read at once, to hash a file


class HashedFile(OutgoingFile):
    """A file that is sent, and hashed at that; from the beginning when it is sent again."""

    def __init__(self, path: Path, index: int, run: Run) -> None:
        super().__init__(path, index, run)
        self._hash = hashlib.new(HASH)
        self._hashed = 0

    def read(self, size: int | None = -1, /) -> bytes:
        start = self.tell()
        data = super().read(size)
        if start == 0:
            self._hash, self._hashed = hashlib.new(HASH), 0
        if start == self._hashed:
            self._hash.update(data)
            self._hashed += len(data)
        return data

    def digest(self, algorithm: str) -> str:
        """Hexadecimal, of the whole file; read again, if it was not sent whole, or by another."""
        if algorithm == HASH and self._hashed == self.size:
            return self._hash.hexdigest()
        digest = hashlib.new(algorithm, usedforsecurity=False)
        self.seek(0)
        while block := self.read(BLOCK):
            digest.update(block)
        return digest.hexdigest()


class Images:
    """What `run` does to images. It stops when it is cancelled."""

    def __init__(self, cloud: Cloud, run: Run) -> None:
        self._cloud = cloud
        self._run = run

    def check_free(self, names: list[str], own: set[str]) -> None:
        """Glance takes a name twice, and whoever asks for it by name gets either."""
        for name in names:
            look = partial(_named, name)
            for identifier in self._cloud.ask(f"Glance: image {name}", look, self._run):
                if identifier not in own:
                    raise TargetError(
                        f"Glance: an image {name} exists already ({identifier})",
                        id="target-exists",
                        hint="give the guest another name with -on",
                    )

    def send(
        self, index: int, path: Path, attributes: Mapping[str, Any], properties: Mapping[str, str]
    ) -> str:
        """Make an image of a file; gives its id. One that an earlier try left is used."""
        with HashedFile(path, index, self._run) as file:
            identifier, status = self._ready(index, attributes, properties)
            if status != "active":
                self._upload(identifier, file)
            self._check(identifier, file)
        return identifier

    def _ready(
        self, index: int, attributes: Mapping[str, Any], properties: Mapping[str, str]
    ) -> tuple[str, str]:
        """The id of an image that is queued, or is all there, and which of them."""
        if (known := self.known(index)) is not None:
            status = self._status(known)
            if status in ("queued", "active"):
                return known, status
            self.delete(known)  # half of it was sent
        return self._create(index, attributes, properties), "queued"

    def known(self, index: int) -> str | None:
        """The id that this job has chosen for the disk's image."""
        key = _key(index)
        return self._run.journal.get(key, str) if key in self._run.journal else None

    def _create(
        self, index: int, attributes: Mapping[str, Any], properties: Mapping[str, str]
    ) -> str:
        self._cloud.note_project(self._run)
        identifier = str(uuid.uuid4())
        self._run.journal.put(_key(index), identifier)
        body = {**properties, **attributes, "id": identifier}

        def act(connection: Any) -> None:
            raise_refusal(connection.image.post("/images", json=body))

        self._cloud.change(f"Glance: image for disk {index + 1}", act)
        return identifier

    def _upload(self, image: str, file: HashedFile) -> None:
        """Until the server has answered. Whoever is cancelled does not wait for that."""
        headers = {
            "Content-Type": "application/octet-stream",
            "Accept": "",
            "X-OpenStack-Image-Size": str(file.size),
        }

        def act(connection: Any) -> None:
            answer = connection.image.put(
                f"/images/{image}/file",
                data=file,
                headers=headers,
                timeout=STORE_SECONDS,
                # Whoever tries again would send the rest of the file, which is nothing.
                allow_reauth=False,
                connect_retries=0,
                status_code_retries=0,
            )
            raise_refusal(answer)

        file.seek(0)
        self._cloud.ask(f"Glance: uploading image {image}", act, self._run, seconds=DAY)

    def _check(self, image: str, file: HashedFile) -> None:
        """That Glance has what was sent. An image that differs is removed."""
        what = f"Glance: image {image}"
        found = self._cloud.ask(what, lambda c: c.image.get_image(image), self._run)
        if found.status != "active":
            raise TargetError(
                f"{what} is {str(found.status)!r} after its upload",
                id="target-state",
                hint=f"`v2v resume {self._run.job_id}` sends it again; Glance's log tells why",
            )
        if not _is_same(found, file):
            self.delete(image)
            raise CopyError(
                f"{what} is not what was sent: its checksum differs",
                id="target-checksum",
                hint=f"`v2v resume {self._run.job_id}` sends it again",
            )

    def rename(self, image: str, name: str) -> None:
        self._cloud.change(
            f"Glance: image {image}", lambda c: c.image.update_image(image, name=name)
        )

    def delete(self, image: str) -> None:
        """Returns when it is gone."""
        self._cloud.change(
            f"Glance: deleting image {image}",
            lambda c: c.image.delete_image(image, ignore_missing=True),
        )

    def remove(self, images: Iterable[str]) -> None:
        self._cloud.check_project(self._run)
        all_of(partial(self.delete, image) for image in images)

    def _status(self, image: str) -> str | None:
        """None when it is gone."""
        return self._cloud.find(
            f"Glance: image {image}", lambda c: str(c.image.get_image(image).status), self._run
        )


def _key(index: int) -> str:
    """In the journal."""
    return f"glance-image:{index}"


def _named(name: str, connection: Any) -> list[str]:
    found = islice(connection.image.images(name=name), MOST_NAMED)
    return [str(one.id) for one in found if one.name == name]


def _is_same(found: Any, file: HashedFile) -> bool:
    """By the best checksum that Glance tells and that we know; by the size where it tells none."""
    if found.size is not None and found.size != file.size:
        return False
    if found.hash_algo in HASHES and found.hash_value:
        return bool(file.digest(str(found.hash_algo)) == found.hash_value)
    return not found.checksum or bool(file.digest("md5") == found.checksum)
