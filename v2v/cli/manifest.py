"""What `v2v list --manifest` prints: YAML that tells of each VM, to be edited.

All strings come from the source. They are values only, never comments or keys, and PyYAML writes
them so that they are read back as they were.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import msgspec

from v2v import options, registry
from v2v.job import ModuleChoice
from v2v.types import GuestSummary

VERSION = 1

HEADER = """\
# Written by `v2v list --manifest`, to be edited.
# defaults: what counts for every VM; a VM may have an input or output of its own.
# skip: true leaves a VM out; reason tells why v2v would.
# source: what the source told of the VM. For people: v2v does not read it.
"""

FACTS = ("where", "power", "os", "firmware", "memory", "vcpus", "disks", "provisioned", "used")


def manifest_text(guests: Sequence[GuestSummary], choice: ModuleChoice) -> str:
    import yaml

    document = _clean(
        {
            "version": VERSION,
            "defaults": {"input": _input(choice), "output": {"mode": "local", "storage": None}},
            "vms": [_vm(one) for one in guests],
        }
    )
    text = yaml.safe_dump(
        document,
        sort_keys=False,
        width=100,
        # Else what is invisible, or turns the reading order, would stand there as it is.
        allow_unicode=_is_printable(document),
    )
    return HEADER + text


def _input(choice: ModuleChoice) -> dict[str, Any]:
    """The mode and its options, by the names of their fields; those of a plugin by their own."""
    cls = registry.find_input(choice.mode).Options
    names = {field.metadata["flag"]: field.name for field in dataclasses.fields(cls)}
    words = options.anchored(cls, choice.options)
    return {"mode": choice.mode} | {names.get(flag, flag): word for flag, word in words.items()}


def _vm(guest: GuestSummary) -> dict[str, Any]:
    told = msgspec.to_builtins(guest)
    source = {name: told[name] for name in FACTS if told[name] not in (None, "")}
    source |= {"cbt": guest.cbt} if guest.cbt is not None else {}
    source |= {"snapshots": list(guest.snapshots)} if guest.snapshots else {}
    warnings = [one.text for one in guest.findings if one.severity == "warning"]
    source |= {"warnings": warnings} if warnings else {}
    return {"name": guest.name, "id": guest.id} | _skipped(guest) | {"source": source}


def _skipped(guest: GuestSummary) -> dict[str, Any]:
    if guest.convertible:
        return {}
    reasons = [f"{one.text} ({one.id})" for one in guest.findings if one.severity == "blocker"]
    return {"skip": True, "reason": "; ".join(reasons)}


def _clean(value: Any) -> Any:
    """Without halves of surrogate pairs, which are no text; YAML cannot hold them."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {key: _clean(one) for key, one in value.items()}
    return [_clean(one) for one in value] if isinstance(value, list) else value


def _is_printable(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_printable, value.values()))
    if isinstance(value, list):
        return all(map(_is_printable, value))
    return not isinstance(value, str) or value.isprintable()
