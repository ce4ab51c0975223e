"""The conversion server: the one that v2v runs in, which volumes are attached to."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from urllib.parse import urlsplit

from v2v.errors import HostError, TargetError, UsageError
from v2v.hardware import valid_uuid
from v2v.outputs._openstack.cloud import Cloud
from v2v.outputs._openstack.errors import is_missing
from v2v.outputs._openstack.options import METADATA_SERVICE, OpenStackOptions
from v2v.run import Run
from v2v.texts import clean

# Nova's firmware tables; whoever else answers at that address is none of our business.
PRODUCT = Path("/sys/class/dmi/id/product_name")
NOVA = "OpenStack"
MACHINE = Path("/sys/class/dmi/id/product_uuid")
METADATA_PATH = "/openstack/latest/meta_data.json"
METADATA_SECONDS = 10.0
METADATA_BYTES = 1024 * 1024


def server_id(options: OpenStackOptions) -> str:
    """The id of the server that we run in; of a job that is resumed, it may be another one."""
    given = options.server_id
    if given is None:
        return _told_by_metadata(options.metadata_service)
    server = valid_uuid(given)
    if server is None:
        raise UsageError(
            f"-oo server-id={given}: that is no UUID",
            id="option-value",
            hint="`openstack server list` shows the ids of servers",
        )
    return server


def check_server(server: str, cloud: Cloud, run: Run) -> None:
    _check_here(server)
    try:
        found = cloud.ask(f"Nova: server {server}", lambda c: c.compute.get_server(server), run)
    except TargetError as exc:
        if not is_missing(exc):
            raise
        raise TargetError(
            f"Nova: the project has no server {server}",
            id="server-unknown",
            hint="-oo server-id is the id of the server that v2v runs in; "
            "`openstack server list` shows them",
        ) from exc
    if found.status != "ACTIVE":
        raise TargetError(
            f"Nova: server {server} is {clean(str(found.status))}, and takes no volumes",
            id="target-state",
            hint="v2v must run in that server",
        )


def _check_here(server: str) -> None:
    """Nova gives a server its id as that of the machine. Volumes belong into no other server."""
    if not _is_nova():
        return
    try:
        here = valid_uuid(MACHINE.read_text().strip())
    except OSError:  # only root may read it
        return
    if here not in (None, server):
        raise UsageError(
            f"-oo server-id={server} is another server: v2v runs in {here}",
            id="server-unknown",
            hint="leave out -oo server-id, or run v2v in that server",
        )


def _told_by_metadata(service: str | None) -> str:
    """Without `service`, its address, the usual one is asked; but only in a server of OpenStack."""
    if service is None and not _is_nova():
        raise UsageError(
            "-o openstack needs -oo server-id: this host is no server of OpenStack",
            id="server-unknown",
            hint="run v2v in a server of the project; volumes are attached to it and written there",
        )
    address = service or METADATA_SERVICE
    try:
        found = valid_uuid(str(_metadata(address).get("uuid")))
    except (OSError, ValueError, http.client.HTTPException) as exc:
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
