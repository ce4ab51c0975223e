"""What -i vsphere can be told."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path

from v2v.errors import UsageError
from v2v.inputs import _options as common
from v2v.inputs import _plugins as plugins
from v2v.inputs._ssh import options as ssh
from v2v.inputs._ssh.place import SshReader
from v2v.inputs._vsphere.running import Running
from v2v.inputs._vsphere.vddk import VddkOptions
from v2v.options import FREE, option

SSH, VDDK = "ssh", "vddk"  # words of -it
SSH_ONLY = ("ssh_host", "ssh_password_file", "reader", "known_hosts", "host_key", "identity")
SHUTDOWN_SECONDS = 300  # a server with much to end takes minutes


class Api(StrEnum):
    """How the server is asked."""

    AUTO = "auto"  # pyVmomi if it is installed: it tells more
    LIBVIRT = "libvirt"
    PYVMOMI = "pyvmomi"


@dataclass(frozen=True, slots=True, kw_only=True)
class VsphereOptions(VddkOptions):
    uri: str = option(
        "-ic",
        "the server: vpx://USER@VCENTER[/DATACENTER/[CLUSTER/]ESXI], or esx://root@ESXI",
        metavar="URI",
    )
    password_file: Path | None = common.password_file("of the user in the URI")
    api: Api = option("--vsphere-api", "how the server is asked", default=Api.AUTO)
    transport: str | None = option(
        "-it",
        "how the disks are read: https (default), ssh from the ESXi host, vddk, or any plugin of "
        "nbdkit",
        default=None,
        metavar="https|ssh|vddk|nbdkit:NAME",
    )
    snapshot: str | None = option(
        "-io snapshot",
        "read the disks as they were when this snapshot was made; the VM may run",
        default=None,
        metavar="NAME",
    )
    running: Running = option(
        "-io running",
        "what becomes of a VM that runs; `v2v undo` takes it back",
        default=Running.REFUSE,
    )
    shutdown_timeout: int = option(
        "-io shutdown-timeout",
        "with running=shutdown: how long the VM may take",
        default=SHUTDOWN_SECONDS,
        metavar="SECONDS",
    )
    cafile: Path | None = option(
        "-io cafile", "file with the CA (PEM) that signed the server's certificate", default=None
    )
    thumbprint: str | None = option(
        "-io thumbprint",
        "the fingerprint that the server's own certificate must have: SHA-256, or SHA-1",
        default=None,
    )
    ssh_host: str | None = option(
        "-io ssh-host",
        "with -it ssh: the ESXi host, where it is not to be the one that has the VM",
        default=None,
        metavar="[USER@]HOST[:PORT]",
    )
    ssh_password_file: Path | None = option(
        "-io ssh-password", "with -it ssh: file with the password for the ESXi host", default=None
    )
    reader: SshReader = ssh.reader()
    known_hosts: Path | None = ssh.known_hosts()
    host_key: str | None = ssh.host_key()
    identity: Path | None = ssh.identity()
    parameters: FREE = plugins.parameters_option()


def check_useful(options: VsphereOptions) -> None:
    """UsageError for what would do nothing beside the other options: it would be left out silently,
    as the state that `vddk-snapshot` names."""
    for field in fields(options):
        needs = _needs(field.name)
        given = getattr(options, field.name) != field.default
        if needs is not None and given and options.transport != needs:
            raise _useless(field.metadata["flag"], f"-it {needs}")
    if options.shutdown_timeout != SHUTDOWN_SECONDS and options.running is not Running.SHUTDOWN:
        raise _useless("-io shutdown-timeout", "-io running=shutdown")
    if options.snapshot is not None and options.running is not Running.REFUSE:
        raise UsageError(
            f"-io snapshot and -io running={options.running} exclude each other",
            id="option-conflict",
            hint="the VM may run while a snapshot is read that is there already: "
            "leave out -io running; or read the disks as they are now: leave out -io snapshot",
        )


def _needs(field: str) -> str | None:
    """The transport without which an option does nothing."""
    if field in SSH_ONLY:
        return SSH
    return VDDK if field in {one.name for one in fields(VddkOptions)} else None


def _useless(flag: str, beside: str) -> UsageError:
    return UsageError(
        f"{flag} does nothing without {beside}",
        id="option-useless",
        hint=f"give {beside} too, or leave it out",
    )
