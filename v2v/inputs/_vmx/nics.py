"""The network cards of a .vmx file."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from v2v.errors import SourceError
from v2v.inputs._vmx.text import Vmx
from v2v.run import Run
from v2v.texts import clean
from v2v.types import Nic

MAX_NICS = 1000
_NIC = re.compile(
    r"ethernet(\d{1,4})\.(?:present|address|generatedaddress|virtualdev|networkname|connectiontype"
    r"|vnet|opaquenetwork\.id|dvs\.switchid|dvs\.portgroupid)",
    re.ASCII,
)
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def read_nics(vmx: Vmx, run: Run) -> tuple[Nic, ...]:
    """In the order of their numbers. Those that are not present do not count."""
    told = {int(m[1]): f"ethernet{m[1]}" for m in vmx.matching(_NIC)}
    found = {number: key for number, key in told.items() if _is_there(vmx, key, run)}
    if len(found) > MAX_NICS:
        raise SourceError(
            f"{vmx.name}: {len(found)} network cards", id="vmx-value", hint="is the file damaged?"
        )
    return tuple(_nic(vmx, found[number], run) for number in sorted(found))


def _is_there(vmx: Vmx, key: str, run: Run) -> bool:
    said = vmx.flag(f"{key}.present")
    if said is None:
        run.warn(
            f"{vmx.name}: the network card {key} is left out: VMware does not take it for present",
            id="vmx-nic-absent",
            hint=f'if the VM has it, add the line {key}.present = "TRUE"',
        )
    return said is True


def _nic(vmx: Vmx, key: str, run: Run) -> Nic:
    kind, network = _network(vmx, key, run)
    slot = vmx.number(f"{key}.pciSlotNumber")
    return Nic(
        mac=_mac(vmx, key, run),
        kind=kind,
        network=clean(network),
        model=clean(vmx.text(f"{key}.virtualDev").lower()) or None,
        slot=slot if slot is not None and 0 <= slot < 1 << 16 else None,
        connected=vmx.flag(f"{key}.startConnected") is not False,
    )


def _mac(vmx: Vmx, key: str, run: Run) -> str | None:
    """The one that somebody chose, or that VMware did, as the file says which counts."""
    chosen, generated = vmx.text(f"{key}.address"), vmx.text(f"{key}.generatedAddress")
    static = vmx.text(f"{key}.addressType").lower() == "static"
    text = (chosen or generated) if static else (generated or chosen)
    mac = text.lower().replace("-", ":")
    if text and not _MAC.fullmatch(mac):
        run.warn(
            f"{vmx.name}: the MAC of {key} is {text[:40]!r}, no MAC: the card gets a new one",
            id="nic-mac-invalid",
            hint="network settings of the guest that go by the MAC will not fit",
        )
    return mac if _MAC.fullmatch(mac) else None


def _network(vmx: Vmx, key: str, run: Run) -> tuple[str, str]:
    """Kind and name: an ESXi port group by its name or id, a network of Workstation by its kind."""
    for name in ("networkName", "opaqueNetwork.id", "dvs.portgroupId"):
        if found := vmx.text(f"{key}.{name}"):
            return "network", found
    if vmx.text(f"{key}.dvs.switchId"):
        _warn_switch(vmx, key, run)
        return "network", "dvs"
    kind = vmx.text(f"{key}.connectionType").lower() or "bridged"
    if kind == "custom":
        return "network", PurePosixPath(vmx.text(f"{key}.vnet")).name or "custom"
    return ("bridge" if kind == "bridged" else "network"), kind


def _warn_switch(vmx: Vmx, key: str, run: Run) -> None:
    run.warn(
        f"{vmx.name}: the network card {key} is at a port of a distributed switch, and its port "
        "group is not told: its network is called dvs",
        id="nic-connection",
        hint="say where the target shall connect it: -n dvs:NETWORK, or --mac MAC:network:NAME",
    )
