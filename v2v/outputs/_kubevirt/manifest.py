"""VirtualMachines and DataVolumes written from the hardware model.

https://kubevirt.io/api-reference/ (kubevirt.io/v1) and CDI's cdi.kubevirt.io/v1beta1. Of the fields
that need a feature gate only those of a persistent TPM are used. Whatever the source's strings
hold, the result is YAML that the API's schema takes: what does not fit is replaced or left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from v2v import __version__
from v2v.hardware import Hardware, valid_uuid
from v2v.outputs._files import disk_suffix
from v2v.outputs._kubevirt import Object
from v2v.outputs._kubevirt.devices import ARCHITECTURES, devices_of, is_pc, network
from v2v.outputs._kubevirt.names import disk_name, kube_name
from v2v.outputs._kubevirt.networks import attach
from v2v.texts import clean, clean_description, clean_name
from v2v.types import BlockBus, Finding, Firmware, KiB, Machine, MiB

VM_API = "kubevirt.io/v1"
VOLUME_API = "cdi.kubevirt.io/v1beta1"

# CDI gives an image a whole number of these: https://github.com/kubevirt/containerized-data-importer
VOLUME_UNIT = 1 * MiB


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the user may choose of a manifest."""

    namespace: str | None = None  # None: where it is applied
    start: bool = False
    timezone: str | None = None  # of guests that take their clock for local time
    preallocated: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)


def data_volume(
    name: str, size: int, wishes: Wishes, *, storage_class: str | None = None, file: str = ""
) -> Object:
    """A volume that waits for an image of `size` bytes; access and volume mode are left to the
    storage profile. `file` is the image's name, for who sends it."""
    storage: Object = {"resources": {"requests": {"storage": volume_size(size)}}}
    if storage_class:
        storage["storageClassName"] = storage_class
    spec: Object = {"source": {"upload": {}}, "storage": storage}
    if wishes.preallocated:
        spec["preallocation"] = True
    annotations = {
        # No pod that uses it exists yet, and none can before it is filled.
        "cdi.kubevirt.io/storage.bind.immediate.requested": "true",
        "cdi.kubevirt.io/storage.deleteAfterCompletion": "false",
    }
    if file:
        annotations["v2v-file"] = clean_name(file)
    metadata = _metadata(name, wishes, annotations)
    return {"apiVersion": VOLUME_API, "kind": "DataVolume", "metadata": metadata, "spec": spec}


def volume_size(size: int) -> str:
    return f"{-(-size // VOLUME_UNIT)}Mi"


def virtual_machine(hardware: Hardware, wishes: Wishes, *, name: str | None = None) -> Object:
    """The VM, whose disks are the DataVolumes `disk_name(name, index)`.

    TargetError for network cards that KubeVirt cannot have. `name`: of `kube_name`.
    """
    name = name or kube_name(hardware.name)
    disks = [f"{disk_suffix(index)}" for index in range(hardware.disk_count)]
    cards = attach(hardware.nics)
    spec: Object = {"architecture": ARCHITECTURES[hardware.arch], "domain": _domain(hardware)}
    spec["domain"]["clock"] = _clock(hardware, wishes)
    spec["domain"]["devices"] = devices_of(hardware, disks, cards)
    spec["networks"] = [network(index, card) for index, card in enumerate(cards)]
    spec["volumes"] = [
        {"name": disk, "dataVolume": {"name": disk_name(name, index)}}
        for index, disk in enumerate(disks)
    ]
    return {
        "apiVersion": VM_API,
        "kind": "VirtualMachine",
        "metadata": _metadata(name, wishes, _annotations(hardware)),
        "spec": {
            "runStrategy": "Always" if wishes.start else "Halted",
            "template": {"metadata": {"labels": {"kubevirt.io/domain": name}}, "spec": spec},
        },
    }


def to_yaml(comment: Iterable[str], objects: Sequence[Object]) -> bytes:
    """One file of all; the comment's lines hold nothing that could end them."""
    import yaml

    head = "".join(f"# {clean(line)}\n" for line in comment)
    body = yaml.safe_dump_all(objects, sort_keys=False, allow_unicode=True, explicit_start=True)
    return (head + body).encode()


def differences(hardware: Hardware, wishes: Wishes) -> Iterator[Finding]:
    """Where the VM is not what the model asks for."""
    shown, name = clean_name(hardware.name), kube_name(hardware.name)
    if name != hardware.name:
        text = f"{shown} is called {name} in KubeVirt"
        yield Finding("warning", "kubevirt-name", text, "-on gives another name")
    if hardware.block_bus is BlockBus.IDE:
        text = "KubeVirt has no IDE: the disks are on SATA, for which the guest needs AHCI"
        yield Finding("warning", "kubevirt-device", text)
    if hardware.machine is Machine.I440FX:
        text = "KubeVirt has no machine of the type pc: it is a q35"
        yield Finding("warning", "kubevirt-device", text)
    if hardware.secure_boot and not _secure_boot(hardware):
        text = "KubeVirt has secure boot on x86 alone: the guest starts without it"
        yield Finding("warning", "kubevirt-device", text)
    if not hardware.rtc_utc and not wishes.timezone:
        text = "the guest takes its clock for local time, and KubeVirt's is in UTC"
        yield Finding("warning", "kubevirt-clock", text, "-oo timezone=Europe/Berlin")
    for card in attach(hardware.nics):
        if card.unmapped:
            where = clean_name(card.nic.network)
            text = f"no network of a cluster is called {where!r}: its card is on the pod network"
            hint = f"--{card.nic.kind} {where!r}:NAMESPACE/NAME puts it elsewhere"
            yield Finding("warning", "kubevirt-network", text, hint)


def _metadata(name: str, wishes: Wishes, annotations: Mapping[str, str]) -> Object:
    metadata: Object = {"name": name}
    if wishes.namespace:
        metadata["namespace"] = wishes.namespace
    if wishes.labels:
        metadata["labels"] = dict(wishes.labels)
    return {**metadata, "annotations": dict(annotations)}


def _annotations(hardware: Hardware) -> dict[str, str]:
    found = {
        "v2v-version": __version__,
        "v2v-name": clean_name(hardware.name),
        "v2v-osinfo": clean_name(hardware.osinfo or ""),
        "description": clean_description(hardware.description or "") or "",
    }
    return {key: text for key, text in found.items() if text}


def _domain(hardware: Hardware) -> Object:
    pc = is_pc(hardware)
    return {
        "machine": {"type": "q35" if pc else "virt"},
        "cpu": {**_layout(hardware), "model": "host-model" if pc else "host-passthrough"},
        "memory": {"guest": _quantity(hardware.memory)},
        "firmware": _firmware(hardware),
        "features": _features(hardware),
    }


def _layout(hardware: Hardware) -> Object:
    """Without a topology one socket: some systems use no more than two, whatever is in them."""
    if topology := hardware.topology:
        return {
            "sockets": topology.sockets,
            "cores": topology.cores,
            "threads": topology.threads,
        }
    return {"sockets": 1, "cores": hardware.vcpus, "threads": 1}


def _quantity(size: int) -> str:
    return f"{size // MiB}Mi" if size % MiB == 0 else f"{-(-size // KiB)}Ki"


def _firmware(hardware: Hardware) -> Object:
    firmware: Object = {"bootloader": {"bios": {}}}
    if hardware.firmware is Firmware.UEFI:
        efi: Object = {"secureBoot": _secure_boot(hardware)}
        if hardware.tpm:  # both need the same storage for a VM's state
            efi["persistent"] = True
        firmware = {"bootloader": {"efi": efi}}
    if uuid := valid_uuid(hardware.uuid):
        firmware["uuid"] = uuid
    return firmware


def _secure_boot(hardware: Hardware) -> bool:
    """Only PCs can: it takes system management mode."""
    return hardware.secure_boot and is_pc(hardware)


def _features(hardware: Hardware) -> Object:
    features: Object = {"acpi": {}}
    if hardware.firmware is Firmware.UEFI and _secure_boot(hardware):
        features["smm"] = {"enabled": True}
    if hardware.windows and is_pc(hardware):
        # Without these Windows takes late timers for a hang, and halts.
        features["hyperv"] = {
            "relaxed": {},
            "vapic": {},
            "spinlocks": {"spinlocks": 8191},
        }
    return features


def _clock(hardware: Hardware, wishes: Wishes) -> Object:
    local = wishes.timezone if not hardware.rtc_utc else None
    clock: Object = {"timezone": local} if local else {"utc": {}}
    if hardware.windows and is_pc(hardware):
        clock["timer"] = {
            "hpet": {"present": False},
            "hyperv": {},
            "pit": {"tickPolicy": "delay"},
            "rtc": {"tickPolicy": "catchup"},
        }
    return clock
