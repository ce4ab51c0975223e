"""What the webhooks of KubeVirt refuse beyond the schema, as far as v2v writes it.

By kubevirt's pkg/virt-api/webhooks. Some of it is refused only when the VM is started.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

MACHINES = {"amd64": "q35", "arm64": "virt"}


def refusals(vm: Any) -> Iterator[str]:
    spec = vm["spec"]["template"]["spec"]
    domain = spec["domain"]
    yield from _pairs("disk", domain["devices"]["disks"], "volume", spec["volumes"])
    yield from _pairs("interface", domain["devices"]["interfaces"], "network", spec["networks"])
    yield from _networks(spec)
    orders = [one["bootOrder"] for one in domain["devices"]["disks"] if "bootOrder" in one]
    if len(set(orders)) < len(orders):
        yield f"a boot order is given twice: {orders}"
    if _secure_boot(domain) and not domain["features"].get("smm", {}).get("enabled"):
        yield "SecureBoot requires SMM"
    if domain["machine"]["type"] != MACHINES[spec["architecture"]]:
        yield f"no machine {domain['machine']['type']} of {spec['architecture']}"
    if spec["architecture"] == "arm64":
        yield from _of_arm(domain)


def _pairs(one: str, ones: Sequence[Any], other: str, others: Sequence[Any]) -> Iterator[str]:
    """Everything has its counterpart, once."""
    names, counterparts = (sorted(x["name"] for x in found) for found in (ones, others))
    if names != counterparts or len(set(names)) < len(names):
        yield f"{one}s {names} and {other}s {counterparts} do not belong together"


def _networks(spec: Any) -> Iterator[str]:
    pods = {one["name"] for one in spec["networks"] if "pod" in one}
    if len(pods) > 1:
        yield "more than one interface is connected to a pod network"
    for card in spec["domain"]["devices"]["interfaces"]:
        if "masquerade" in card and card["name"] not in pods:
            yield "masquerade is for the pod network alone"
        if "bridge" in card and card["name"] in pods:
            yield "bridge on the pod network is not enabled"
    unasked = spec["domain"]["devices"].get("autoattachPodInterface") is not False
    if not spec["networks"] and unasked:
        yield "a card on the pod network would be added"


def _secure_boot(domain: Any) -> bool:
    """The default of UEFI."""
    efi = domain["firmware"]["bootloader"].get("efi")
    return efi is not None and efi.get("secureBoot") is not False


def _of_arm(domain: Any) -> Iterator[str]:
    devices = domain["devices"]
    if "bios" in domain["firmware"]["bootloader"]:
        yield "Arm64 does not support bios boot"
    if _secure_boot(domain):
        yield "UEFI secure boot is currently not supported on aarch64"
    if domain["cpu"]["model"] != "host-passthrough":
        yield "host-passthrough is the only model on Arm64"
    if {one["disk"]["bus"] for one in devices["disks"]} - {"virtio", "scsi"}:
        yield "Arm64 does not support this disk bus"
    if "sound" in devices:
        yield "Arm64 does not support sound devices"
