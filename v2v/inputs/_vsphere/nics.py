"""The network cards among a VM's devices."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from v2v.inputs._vsphere.names import plain_name
from v2v.run import Run
from v2v.texts import clean_name
from v2v.types import Nic

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
# Its types, and what .vmx files call them, which the rest of v2v knows.
MODELS = {
    "VirtualE1000": "e1000",
    "VirtualE1000e": "e1000e",
    "VirtualPCNet32": "vlance",
    "VirtualVmxnet": "vmxnet",
    "VirtualVmxnet2": "vmxnet2",
    "VirtualVmxnet3": "vmxnet3",
    "VirtualVmxnet3Vrdma": "vmxnet3",
    "VirtualSriovEthernetCard": "sriov",
}
UNKNOWN_NETWORK = "unknown"


def read_nics(
    devices: Sequence[Any], networks: Mapping[str, str], name: str, run: Run
) -> tuple[Nic, ...]:
    """In their order. `networks`: names by reference. `name` is the VM's, for messages."""
    from pyVmomi import vim

    cards = [one for one in devices if isinstance(one, vim.vm.device.VirtualEthernetCard)]
    return tuple(_nic(card, networks, name, run) for card in sorted(cards, key=lambda c: c.key))


def _nic(card: Any, networks: Mapping[str, str], name: str, run: Run) -> Nic:
    connectable = card.connectable
    slot = getattr(card.slotInfo, "pciSlotNumber", None)
    mac = (card.macAddress or "").lower().replace("-", ":")
    return Nic(
        mac=mac if _MAC.fullmatch(mac) else None,
        network=_network(card, networks, name, run),
        model=MODELS.get(type(card).__name__.rpartition(".")[2]),
        slot=slot if slot is not None and 0 <= slot < 1 << 16 else None,
        connected=connectable is None or connectable.startConnected is not False,
    )


def _network(card: Any, networks: Mapping[str, str], name: str, run: Run) -> str:
    """The name of the network or port group; what an ESXi host cannot tell is its reference."""
    backing = card.backing
    port = getattr(backing, "port", None)
    network = getattr(backing, "network", None)
    references = [
        getattr(network, "_moId", None),
        getattr(port, "portgroupKey", None),
        getattr(backing, "opaqueNetworkId", None),
    ]
    known = next((networks[one] for one in references if one and one in networks), None)
    told = known or plain_name(getattr(backing, "deviceName", None) or "")
    if told:
        return clean_name(told)
    shown = clean_name(next((one for one in references if one), "") or UNKNOWN_NETWORK)
    run.warn(
        f"{name}: the server does not tell the name of a card's network, which it calls {shown}",
        id="nic-connection",
        hint=f"say where the target shall connect it: -n {shown}:NETWORK, or --mac "
        "MAC:network:NAME; a vCenter tells more than its hosts do",
    )
    return shown
