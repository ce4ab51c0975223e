"""What a libvirt host can do for a guest: https://libvirt.org/formatdomaincaps.html."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from v2v import accel
from v2v.errors import TargetError
from v2v.libvirt_connection import LibvirtHost, ask
from v2v.outputs._libvirt.answers import Element, parse_xml
from v2v.outputs._libvirt.connection import is_local
from v2v.run import Run
from v2v.types import Machine

KVM = Path("/dev/kvm")
VHOST_VSOCK = Path("/dev/vhost-vsock")
PLAIN_VCPUS = 255  # more take an IOMMU with extended interrupts, which the domain does not have


@dataclass(frozen=True, slots=True)
class Capabilities:
    """`offers` has what the host tells of: "rng/model": {"virtio", ...}; a group that it knows
    nothing of is not in it."""

    kind: str = "kvm"  # type of the domain: kvm or qemu
    cpu: str | None = None  # mode of the processor; None: the host does not say
    emulator: str = ""
    offers: Mapping[str, frozenset[str]] | None = None  # None: the host does not say
    vcpus: int = PLAIN_VCPUS  # the most a guest can have
    vsock: bool = True  # maybe: only this host can be looked at

    def has(self, group: str, value: str) -> bool:
        """Whether the host can do it, as far as it tells."""
        if self.offers is None:
            return True
        if "no" in self.offers.get(group.partition("/")[0], ()):
            return False
        return group not in self.offers or value in self.offers[group]


def read_capabilities(host: LibvirtHost, arch: str, machine: Machine, run: Run) -> Capabilities:
    """TargetError where the host runs no guests of this architecture, or has no such machine."""

    def answer(libvirt: Any, connection: Any) -> tuple[Capabilities, str]:
        return _read(libvirt, connection, host, arch, machine), connection.getURI()

    found, uri = ask(host, answer, run)
    return _proven(found, run) if is_local(uri) else found


def _read(
    libvirt: Any, connection: Any, host: LibvirtHost, arch: str, machine: Machine
) -> Capabilities:
    errors = []
    for kind in ("kvm", "qemu"):
        try:
            text = connection.getDomainCapabilities(None, arch, str(machine), kind, 0)
            return parse_capabilities(text)
        except libvirt.libvirtError as exc:
            if exc.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
                return Capabilities()
            if exc.get_error_code() not in (
                libvirt.VIR_ERR_INVALID_ARG,
                libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
            ):
                raise
            errors.append(str(exc))
    raise TargetError(
        f"-oc {host.shown} runs no guests of {arch} on machine {machine}: {errors[-1]}",
        id="target-arch",
        hint="install QEMU for that architecture there, or choose another host",
    )


def parse_capabilities(text: str) -> Capabilities:
    root = parse_xml(text, "what the host can do")
    kind = root.findtext("domain") or "kvm"
    return Capabilities(
        kind="kvm" if kind == "kvm" else "qemu",
        cpu=_cpu_mode(root, kind),
        emulator=root.findtext("path") or "",
        offers=_offers(root),
        vcpus=_vcpus(root),
    )


def _vcpus(root: Element) -> int:
    told = root.find("vcpu")
    most = told.get("max", "") if told is not None else ""
    return min(int(most), PLAIN_VCPUS) if most.isdecimal() else PLAIN_VCPUS


def _cpu_mode(root: Element, kind: str) -> str | None:
    """The best one: without KVM, a model of the host would be emulated with holes in it."""
    modes = {mode.get("name"): mode for mode in root.iterfind("cpu/mode[@supported='yes']")}
    best = ("host-model", "host-passthrough", "maximum") if kind == "kvm" else ("maximum",)
    usable = [mode for mode in best if mode in modes and _is_usable(modes[mode])]
    return usable[0] if usable else None


def _is_usable(mode: Element) -> bool:
    """A host-model of which libvirt could not tell the model is none."""
    return mode.get("name") != "host-model" or mode.find("model") is not None


def _offers(root: Element) -> dict[str, frozenset[str]]:
    """Each group that is told of; of one that is not supported, nothing."""
    found: dict[str, frozenset[str]] = {}
    groups = [*root.iterfind("os"), *root.iterfind("os/loader")]
    groups += [*root.iterfind("devices/*"), *root.iterfind("features/*")]
    for group in groups:
        name = str(group.tag)
        supported = group.get("supported") != "no"
        found[name] = frozenset(["yes"] if supported else ["no"])
        for enum in group.iterfind("enum"):
            values = frozenset(value.text or "" for value in enum.iterfind("value"))
            found[f"{name}/{enum.get('name')}"] = values if supported else frozenset()
    return found


def _proven(found: Capabilities, run: Run) -> Capabilities:
    """What the libvirt of this host believes, looked at: KVM may open, and yet run no guest."""
    found = replace(found, vsock=VHOST_VSOCK.exists())
    may_look = os.access(KVM, os.R_OK | os.W_OK) and Path(found.emulator).is_file()
    if found.kind == "kvm" and may_look:
        if accel.accelerator(found.emulator, run.cancel) == "kvm":
            return found
        return replace(found, kind="qemu", cpu="maximum")
    return found
