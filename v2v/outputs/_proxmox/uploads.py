"""Images that are sent to a storage of the target, for the VM to be made from; removed afterwards.

An upload is received into /var/tmp of the node that answers, and copied from there to the storage,
by a task of that node, whichever has the storage. It is sent whole, or not at all: what breaks off
is not kept by the server.
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from v2v.cancel import Cancel
from v2v.errors import TargetError
from v2v.outputs._proxmox import tasks
from v2v.outputs._proxmox.api import Api
from v2v.outputs._proxmox.names import file_name
from v2v.outputs._proxmox.options import TICKET_SECONDS
from v2v.outputs._proxmox.storages import IMPORT
from v2v.outputs._staged import OutgoingFile
from v2v.run import Run
from v2v.texts import size_text
from v2v.types import DiskFormat, MiB, TargetDisk

SENT = "proxmox-sent"  # journal: an Upload for each disk
TRIES = 4
FIRST_PAUSE = 2.0  # seconds; the next are longer
LOCAL_NODE = Path("/etc/pve/local")  # on a node of a cluster: a link to nodes/NAME
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
HASH_BLOCK = 4 * MiB
ANSWERING = "localhost"  # the API's name for the node that answers
TARGET_FILE = "target file: "  # in the log of a task, before it copies


@dataclass(frozen=True, slots=True)
class Upload:
    """Written down before it is begun."""

    node: str
    storage: str
    name: str
    done: bool = False

    @property
    def volume(self) -> str:
        return f"{self.storage}:import/{self.name}"


@dataclass(frozen=True, slots=True)
class _Volume:
    volid: str


def image_of(api: Api, node: str, storage: str, disk: TargetDisk, index: int, run: Run) -> str:
    """What disk `index` is imported from: sent, unless the server can read the file itself."""
    path = Path(disk.working)
    if not storage:  # is_readable_there
        return str(path)
    key = f"{SENT}:{index}"
    if key in run.journal:  # an earlier run sent it, or died over it
        upload = run.journal.get(key, Upload)
        tasks.settle(api, _copies(api, upload))
        if upload.done and upload.volume in _volumes(api, upload):
            return upload.volume
    upload = Upload(node, storage, file_name(run.job_id, index, disk.format))
    run.journal.put(key, upload)
    _send(api, upload, path, index, run)
    run.journal.put(key, Upload(node, storage, upload.name, done=True))
    return upload.volume


def is_readable_there(api: Api, node: str, folder: Path, format: DiskFormat) -> bool:
    """Whether we run on the node itself, as root, logged in as the one who may name a file.

    Raw images are sent: of a file that is named, the server tells the format from its content,
    which the guest has written.
    """
    if not api.place.is_root or api.place.host not in LOCAL_HOSTS or os.geteuid() != 0:
        return False
    here = LOCAL_NODE.is_symlink() and LOCAL_NODE.readlink().name == node
    return here and format is DiskFormat.QCOW2 and "," not in str(folder)


def remove_uploads(api: Api, count: int, run: Run, *, end: bool = False) -> None:
    """Remove what was sent. Safe to repeat. `end`: stop what the server still does with it."""
    keys = [key for index in range(count) if (key := f"{SENT}:{index}") in run.journal]
    for key in keys:
        upload = run.journal.get(key, Upload)
        if not upload.done:
            tasks.settle(api, _copies(api, upload), end=end)
        if upload.volume in _volumes(api, upload):
            path = f"nodes/{upload.node}/storage/{upload.storage}/content/{upload.volume}"
            upid = api.delete(path, str | None, "remove an image that was sent")  # type: ignore[arg-type]
            if upid:
                tasks.wait_for(api, upid, "remove an image that was sent")
    run.journal.drop(keys)


def count_uploads(run: Run, most: int) -> int:
    """How many records of uploads there may be: one more than the number of the last."""
    return max((i + 1 for i in range(most) if f"{SENT}:{i}" in run.journal), default=0)


def _copies(api: Api, upload: Upload) -> list[str]:
    """The tasks that copy it to its storage. Those of our user's other uploads are let alone: which
    is which, only their logs tell."""
    found = tasks.active(api, ANSWERING, "imgcopy")
    return [u for u in found if tasks.told(api, u, TARGET_FILE).endswith(f"/{upload.name}")]


def _volumes(api: Api, upload: Upload) -> set[str]:
    path = f"nodes/{upload.node}/storage/{upload.storage}/content"
    found = api.find(path, list[_Volume], "list what was sent", content=IMPORT)
    return {one.volid for one in found or ()}  # the storage itself may be gone


def _send(api: Api, upload: Upload, path: Path, index: int, run: Run) -> None:
    pause = FIRST_PAUSE
    digest = _digest(path, run.cancel)
    for left in reversed(range(TRIES)):
        try:
            return _send_once(api, upload, path, digest, index, run)
        except TargetError as exc:
            if exc.id != "target-unreachable":
                raise
            if not left:
                raise _given_up(exc, path, api) from exc
            run.warn(f"{exc.message}: it is sent again", id="target-send-again")
        run.cancel.wait(pause)
        pause *= 2
        tasks.settle(api, _copies(api, upload))  # if only the answer was lost
    return None


def _given_up(error: TargetError, path: Path, api: Api) -> TargetError:
    """A server that finds no room closes the connection, without a word."""
    return TargetError(
        f"{error.message}, {TRIES} times",
        id="target-unreachable",
        hint=f"has /var/tmp of {api.place.host} room for {size_text(path.stat().st_size)}? What "
        "was copied is kept: `v2v resume` sends it again",
    )


def _too_slow(doing: str) -> TargetError:
    return TargetError(
        f"cannot {doing}: it takes longer than the two hours that a login with a password lasts",
        id="target-login",
        hint="write an API token into the file of -op, as USER@REALM!NAME=SECRET, and continue "
        "with `v2v resume`",
    )


def _send_once(api: Api, upload: Upload, path: Path, digest: str, index: int, run: Run) -> None:
    doing = f"send disk {index + 1} to storage {upload.storage}"
    with OutgoingFile(path, index, run) as file:
        file.name = upload.name  # by which proxmoxer calls it
        # The server takes the fields in this order.
        words = {"content": IMPORT, "checksum-algorithm": "sha256", "checksum": digest}
        where = f"nodes/{upload.node}/storage/{upload.storage}/upload"
        begun = time.monotonic()
        try:
            upid = api.upload(where, str, doing, **words, filename=file)
        except TargetError as exc:
            if exc.id != "target-login" or time.monotonic() - begun < TICKET_SECONDS:
                raise
            raise _too_slow(doing) from exc
    tasks.wait_for(api, upid, doing)


def _digest(path: Path, cancel: Cancel) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(HASH_BLOCK):
            cancel.check()
            digest.update(block)
    return digest.hexdigest()
