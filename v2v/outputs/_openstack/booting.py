"""The line that boots the guest, to be copied into a shell."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from v2v.hardware import Hardware, valid_mac
from v2v.outputs._openstack.properties import named
from v2v.texts import clean_name
from v2v.types import Nic

NOWHERE = ("", "default")  # what a source without networks of its own says


def boot_command(hardware: Hardware, root: str, others: Sequence[str]) -> str:
    """`root` is the option of the disk to boot from, `others` are block devices.

    The cards keep their addresses: each gets a port, which is made at that.
    """
    words = [
        "openstack server create --flavor FLAVOR",
        *(_port(hardware, number, nic) for number, nic in enumerate(hardware.nics, 1)),
        *(["--no-network"] if not hardware.nics else []),
        root,
        *(f"--block-device {one}" for one in others),
        "--",
        shlex.quote(named(hardware.name, "")),
    ]
    return " ".join(words)


def _port(hardware: Hardware, number: int, nic: Nic) -> str:
    network = clean_name(nic.network)
    words = [
        "openstack port create -f value -c id",
        "--network=" + ("NETWORK" if network in NOWHERE else shlex.quote(network)),
        *([f"--mac-address {mac}"] if (mac := valid_mac(nic.mac)) else []),
        *([] if nic.connected else ["--disable"]),
        "--",
        shlex.quote(named(hardware.name, f"-nic{number}")),
    ]
    return f"--port $({' '.join(words)})"
