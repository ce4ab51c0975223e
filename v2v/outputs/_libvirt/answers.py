"""XML that libvirt answers."""

from __future__ import annotations

from lxml import etree

from v2v.errors import TargetError
from v2v.outputs._xml import Element

__all__ = ["Element", "parse_xml"]


def parse_xml(text: str, what: str) -> Element:
    """Nothing outside of it is looked up, and its size is bounded by lxml's own limits."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    try:
        return etree.fromstring(text.encode(), parser)
    except etree.XMLSyntaxError as exc:
        raise TargetError(
            f"libvirt's description of {what} cannot be read: {exc}",
            id="target-answer",
            hint="is it a libvirt that answers there?",
        ) from exc
