"""The part of KubeVirt's and CDI's APIs that v2v writes, as JSON Schema.

By https://kubevirt.io/api-reference/ and CDI's doc/datavolumes.md. Closed, so that a misspelt or
misplaced field is seen: the real API server would drop it without a word, and kubectl refuse it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tests.fakes.kubernetes.admission import refusals

Schema = dict[str, Any]


def obj(required: Collection[str] = (), /, **fields: Schema) -> Schema:
    return {
        "type": "object",
        "properties": fields,
        "required": list(required),
        "additionalProperties": False,
    }


def one_of(
    choices: dict[str, Schema], required: Collection[str] = (), /, **fields: Schema
) -> Schema:
    """An object that has exactly one of the choices beside its fields."""
    made = [obj([*required, name], **fields, **{name: one}) for name, one in choices.items()]
    return {"oneOf": made}


def words(*known: str) -> Schema:
    return {"enum": list(known)}


def text(pattern: str, longest: int = 253) -> Schema:
    return {"type": "string", "pattern": rf"^(?:{pattern})\Z", "maxLength": longest}


def many(items: Schema, most: int = 256) -> Schema:
    return {"type": "array", "items": items, "maxItems": most}


EMPTY = obj()
LABEL = text("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
SUBDOMAIN = text("[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
LABELS = {
    "type": "object",
    "propertyNames": text(r"([a-z0-9.-]+/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"),
    "additionalProperties": text("([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?"),
}
ANNOTATIONS = {
    "type": "object",
    "propertyNames": LABELS["propertyNames"],
    "additionalProperties": {"type": "string", "maxLength": 64 * 1024},
}
QUANTITY = text("[1-9][0-9]*(Ki|Mi|Gi|Ti)?")
COUNT = {"type": "integer", "minimum": 1}
BOOLEAN = {"type": "boolean"}
SWITCH = obj(enabled=BOOLEAN)
METADATA = obj(["name"], name=LABEL, namespace=LABEL, labels=LABELS, annotations=ANNOTATIONS)

DISK = one_of(
    {
        "disk": obj(bus=words("virtio", "sata", "scsi", "usb"), readonly=BOOLEAN),
        "cdrom": obj(bus=words("sata", "scsi"), readonly=BOOLEAN),
    },
    ["name"],
    name=LABEL,
    bootOrder=COUNT,
    serial=text("[A-Za-z0-9_.+-]+", 256),
)
INTERFACE = one_of(
    {"masquerade": EMPTY, "bridge": EMPTY},
    ["name"],
    name=LABEL,
    model=words("e1000", "e1000e", "igb", "ne2k_pci", "pcnet", "rtl8139", "virtio"),
    macAddress=text("[0-9a-f]{2}(:[0-9a-f]{2}){5}"),
    state=words("up", "down"),
)
DEVICES = obj(
    ["disks", "interfaces"],
    disks=many(DISK),
    interfaces=many(INTERFACE),
    inputs=many(
        obj(
            ["name", "type"],
            name=LABEL,
            type=words("tablet", "keyboard"),
            bus=words("usb", "virtio"),
        )
    ),
    autoattachMemBalloon=BOOLEAN,
    autoattachPodInterface=BOOLEAN,
    useVirtioTransitional=BOOLEAN,
    rng=EMPTY,
    tpm=obj(enabled=BOOLEAN, persistent=BOOLEAN),
    sound=obj(["name"], name=LABEL, model=words("ich9", "ac97")),
)
CLOCK = one_of(
    {"utc": EMPTY, "timezone": text("[A-Za-z0-9/_+-]+")},
    timer=obj(
        hpet=obj(present=BOOLEAN, tickPolicy=words("delay", "catchup", "merge", "discard")),
        hyperv=obj(present=BOOLEAN),
        kvm=obj(present=BOOLEAN),
        pit=obj(present=BOOLEAN, tickPolicy=words("delay", "catchup", "discard")),
        rtc=obj(present=BOOLEAN, tickPolicy=words("delay", "catchup")),
    ),
)
DOMAIN = obj(
    ["cpu", "devices", "features", "firmware", "machine", "memory"],
    machine=obj(["type"], type=words("q35", "virt")),
    cpu=obj(cores=COUNT, sockets=COUNT, threads=COUNT, model=text("[A-Za-z0-9-]+")),
    memory=obj(["guest"], guest=QUANTITY),
    firmware=obj(
        ["bootloader"],
        uuid=text("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
        bootloader=one_of({"bios": EMPTY, "efi": obj(secureBoot=BOOLEAN, persistent=BOOLEAN)}),
    ),
    features=obj(
        acpi=SWITCH,
        smm=SWITCH,
        hyperv=obj(
            relaxed=SWITCH,
            vapic=SWITCH,
            spinlocks=obj(enabled=BOOLEAN, spinlocks={"type": "integer", "minimum": 4096}),
        ),
    ),
    clock=CLOCK,
    devices=DEVICES,
)
INSTANCE = obj(
    ["architecture", "domain", "networks", "volumes"],
    architecture=words("amd64", "arm64"),
    domain=DOMAIN,
    networks=many(
        one_of(
            {
                "pod": EMPTY,
                "multus": obj(["networkName"], networkName=text("([a-z0-9-]+/)?[a-z0-9.-]+")),
            },
            ["name"],
            name=LABEL,
        )
    ),
    volumes=many(one_of({"dataVolume": obj(["name"], name=SUBDOMAIN)}, ["name"], name=LABEL)),
)
MACHINE = obj(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "kubevirt.io/v1"},
    kind={"const": "VirtualMachine"},
    metadata=METADATA,
    spec=obj(
        ["runStrategy", "template"],
        runStrategy=words("Always", "Halted", "Manual", "Once", "RerunOnFailure"),
        template=obj(["spec"], metadata=obj(labels=LABELS), spec=INSTANCE),
    ),
)
VOLUME = obj(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "cdi.kubevirt.io/v1beta1"},
    kind={"const": "DataVolume"},
    metadata=METADATA,
    spec=obj(
        ["source", "storage"],
        source=one_of({"upload": EMPTY, "blank": EMPTY}),
        preallocation=BOOLEAN,
        storage=obj(
            ["resources"],
            storageClassName=SUBDOMAIN,
            volumeMode=words("Block", "Filesystem"),
            resources=obj(["requests"], requests=obj(["storage"], storage=QUANTITY)),
        ),
    ),
)


def problems(body: Any) -> str:
    """What is wrong with an object, if anything."""
    import jsonschema

    kinds = {"VirtualMachine": MACHINE, "DataVolume": VOLUME}
    schema = kinds.get(body.get("kind"), {"not": {}})
    errors = jsonschema.Draft202012Validator(schema).iter_errors(body)
    found = [f"{error.json_path}: {error.message[:300]}" for error in errors]
    if not found and body["kind"] == "VirtualMachine":
        found = list(refusals(body))
    return "; ".join(found)
