"""Finding things in an OVF descriptor, whatever its namespaces and its version are.

Writers disagree on namespaces, on the case of names (InstanceID, InstanceId), and on how sections
are written: the first version of OVF, and oVirt still, write <Section xsi:type="DiskSection_Type">
for <DiskSection>. Here a kind is the lower-case name without all that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from v2v.inputs._xml import Element

TYPED = ("section", "content")  # elements whose xsi:type tells what they are
OVF_NAMESPACE = re.compile(r"http://(schemas\.dmtf\.org|www\.vmware\.com/schema)/ovf/.*envelope")


def kind(element: Element) -> str:
    """What the element is: "disksection", "item", "resourcetype"."""
    name = _local(element.tag)
    if name in TYPED:
        told = attribute(element, "type")
        return told.rpartition(":")[2].removesuffix("_Type").lower() or name
    return name


def children(element: Element, *kinds: str) -> Iterator[Element]:
    return (child for child in element if kind(child) in kinds)


def child(element: Element | None, name: str) -> Element | None:
    return None if element is None else next(children(element, name), None)


def descendants(element: Element, *kinds: str) -> Iterator[Element]:
    return (found for found in element.iter() if kind(found) in kinds)


def text(element: Element | None, name: str) -> str:
    """The text of the first child of that kind; empty when there is none."""
    found = child(element, name)
    return "" if found is None else (found.text or "").strip()


def attribute(element: Element | None, name: str) -> str:
    """An attribute by its lower-case name, OVF's own before a vendor's; empty if it is missing."""
    if element is None:
        return ""
    found = [(str(key), str(value)) for key, value in element.items() if _local(key) == name]
    own = [value for key, value in found if OVF_NAMESPACE.match(key.strip("{"))]
    return next(iter([*own, *(value for _, value in found)]), "").strip()


def is_true(word: str) -> bool:
    return word.lower() in ("true", "1", "yes", "on")


def is_false(word: str) -> bool:
    return word.lower() in ("false", "0", "no", "off")


def _local(tag: object) -> str:
    return tag.rpartition("}")[2].lower() if isinstance(tag, str) else ""
