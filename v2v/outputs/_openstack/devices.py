"""Volumes as devices of the server that we run in."""

from __future__ import annotations

import errno
import http.client
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from v2v.errors import HostError, TargetError, UsageError
from v2v.hardware import valid_uuid
from v2v.outputs._openstack.volumes import READY_SECONDS
from v2v.run import Run

DISK_BY_ID = Path("/dev/disk/by-id")
SERIAL = 20  # characters of a volume's id that virtio-blk shows, and so udev's names have
PARTITION = re.compile(r"-part[0-9]+$")
PAUSE = 0.1  # seconds between two looks

# Nova's firmware tables; whoever else answers at that address is none of our business.
PRODUCT = Path("/sys/class/dmi/id/product_name")
NOVA = "OpenStack"
METADATA_SERVICE = "http://169.254.169.254"
METADATA_PATH = "/openstack/latest/meta_data.json"
METADATA_SECONDS = 10.0
METADATA_BYTES = 1024 * 1024


def find_device(folder: Path, volume: str, run: Run) -> Path:
    """The device of an attached volume, once udev has made its name."""
    deadline = time.monotonic() + READY_SECONDS
    while not (names := _names(folder, volume)):
        if time.monotonic() > deadline:
            raise TargetError(
                f"volume {volume} is attached, but {folder} shows no device of it",
                id="volume-device",
                hint="v2v must run in the server that -oo server-id names; "
                "-oo dev-disk-by-id=FOLDER tells where udev names disks by their serial",
            )
        run.cancel.wait(PAUSE)
    return names[0]


@contextmanager
def opened(device: Path, size: int) -> Iterator[tuple[int, int]]:
    """A descriptor, for us alone, and the device's bytes, which are `size` at least."""
    try:
        fd = os.open(device, os.O_RDWR | os.O_CLOEXEC | os.O_EXCL)
    except OSError as exc:
        if exc.errno == errno.EBUSY:
            raise TargetError(
                f"{device} is in use on this host",
                id="target-in-use",
                hint="a volume manager or an automounter may have taken it: end that",
            ) from exc
        raise HostError(
            f"{device}: cannot be opened: {exc.strerror}", id="device-open", hint="run as root"
        ) from exc
    try:
        length = os.lseek(fd, 0, os.SEEK_END)
        if length < size:
            raise TargetError(
                f"{device} has {length} bytes, the disk has {size}", id="target-too-small"
            )
        yield fd, length
    finally:
        os.close(fd)


def this_server(service: str | None) -> str:
    """The id of the server that we run in, as its metadata service says.

    Without `service`, its address, the usual one is asked; but only in a server of OpenStack.
    """
    if service is None and not _is_nova():
        raise UsageError(
            "-o openstack needs -oo server-id: this host is no server of OpenStack",
            id="server-unknown",
            hint="run v2v in a server of the project; volumes are attached to it and written there",
        )
    address = service or METADATA_SERVICE
    try:
        found = valid_uuid(str(_metadata(address).get("uuid")))
    except (OSError, ValueError, AttributeError, http.client.HTTPException) as exc:
        raise HostError(
            f"{address}{METADATA_PATH}: {exc}",
            id="metadata-service",
            hint="give this server's id with -oo server-id",
        ) from exc
    if found is None:
        raise HostError(
            f"{address}{METADATA_PATH} tells no server id",
            id="metadata-service",
            hint="give this server's id with -oo server-id",
        )
    return found


def _names(folder: Path, volume: str) -> list[Path]:
    try:
        paths = sorted(folder.iterdir())
    except FileNotFoundError:  # udev makes it with the first disk
        return []
    except OSError as exc:
        raise HostError(f"{folder}: {exc.strerror}", id="device-folder") from exc
    serial = volume[:SERIAL]
    return [one for one in paths if serial in one.name and not PARTITION.search(one.name)]


def _is_nova() -> bool:
    try:
        return NOVA in PRODUCT.read_text(errors="replace")
    except OSError:
        return False


def _metadata(address: str) -> dict[str, object]:
    """Asked directly: no proxy knows this address."""
    parts = urlsplit(address)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError("no address such as http://169.254.169.254")
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=METADATA_SECONDS)
    try:
        connection.request("GET", METADATA_PATH)
        answer = connection.getresponse()
        if answer.status != 200:
            raise ValueError(f"HTTP {answer.status}")
        found = json.loads(answer.read(METADATA_BYTES))
    finally:
        connection.close()
    if not isinstance(found, dict):
        raise ValueError("no metadata")
    return found
