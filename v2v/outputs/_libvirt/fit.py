"""A domain fitted to a host: what the host cannot do is left out, and told."""

from __future__ import annotations

from v2v.outputs._libvirt.answers import Element
from v2v.outputs._libvirt.capabilities import Capabilities

# Devices that a guest can do without: where they are, the attribute, the group of capabilities.
OPTIONAL = (
    ("devices/tpm", "model", "tpm/model"),
    ("devices/tpm/backend", "type", "tpm/backendModel"),
    ("devices/rng", "model", "rng/model"),
    ("devices/rng/backend", "model", "rng/backendModel"),
    ("devices/panic", "model", "panic/model"),
    ("devices/graphics", "type", "graphics/type"),
    ("devices/video/model", "type", "video/modelType"),
    ("devices/channel", "type", "channel/type"),
)
HYPERV = ("features/hyperv", "clock/timer[@name='hypervclock']")  # KVM's imitation of Hyper-V


def fit(domain: Element, host: Capabilities) -> list[str]:
    """Change it, and give what was left out, as people call it."""
    domain.set("type", host.kind)
    _fit_cpu(domain, host)
    if host.kind != "kvm":
        for path in HYPERV:
            for element in domain.findall(path):
                _remove(element)
    dropped = []
    for path, attribute, group in OPTIONAL:
        for element in domain.findall(path):
            if not host.has(group, element.get(attribute) or ""):
                dropped.append(_drop_device(element))
    if not host.has("genid", "yes"):
        dropped += [_drop_device(element) for element in domain.findall("genid")]
    if not host.vsock:
        dropped += [_drop_device(element) for element in domain.findall("devices/vsock")]
    return dropped


def _fit_cpu(domain: Element, host: Capabilities) -> None:
    """No mode at all is QEMU's own default, which every host has."""
    cpu = domain.find("cpu")
    if cpu is None or (host.offers is None and host.cpu is None):
        return
    if host.cpu is not None:
        cpu.set("mode", host.cpu)
    elif "mode" in cpu.attrib:
        del cpu.attrib["mode"]


def _drop_device(element: Element) -> str:
    """The whole device that the element is, or is a part of."""
    parent = element.getparent()
    while parent is not None and parent.tag not in ("devices", "domain"):
        element, parent = parent, parent.getparent()
    _remove(element)
    return device_name(element)


def device_name(element: Element) -> str:
    model = element.get("model") or element.get("type")
    return f"{element.tag} ({model})" if model else str(element.tag)


def _remove(element: Element) -> None:
    parent = element.getparent()
    if parent is not None:
        parent.remove(element)
