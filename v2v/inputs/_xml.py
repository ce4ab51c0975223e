"""Strangers' XML: parsed without entities, without the network, within limits.

Paths are lxml's: "os/type". Where an element is there twice, the first counts.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeAlias

from v2v.errors import SourceError
from v2v.types import MiB

if TYPE_CHECKING:
    from lxml import etree

    Element: TypeAlias = etree._Element

MAX_BYTES = 4 * MiB  # of a file; the largest have some hundred KiB. Parsed it takes 30 times more
PROLOG = re.compile(rb"<[^!?]")  # where the root element begins
DIGITS = re.compile(r"[0-9]{1,20}", re.ASCII)


def parse_xml(data: bytes, name: str) -> Element:
    """The root element. Comments and processing instructions are left out.

    `name` tells in messages where the XML is from. SourceError when it is too large, malformed, or
    has a document type: one of those may define entities that name files or grow without end.
    """
    from lxml import etree

    if len(data) > MAX_BYTES:
        raise too_large(name)
    if b"<!DOCTYPE" in _prolog(data):
        raise _doctype(name)
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError, LookupError) as exc:
        if "ntity" in str(exc) and b"<!DOCTYPE" in data:  # they grew without end
            raise _doctype(name) from exc
        raise SourceError(
            f"{name} is not XML: {getattr(exc, 'msg', exc)}",
            id="xml-invalid",
            hint="is it the right file, and complete?",
        ) from exc
    docinfo = root.getroottree().docinfo
    if getattr(docinfo, "doctype", ""):
        raise _doctype(name)
    return root


def too_large(name: str) -> SourceError:
    return SourceError(
        f"{name} is larger than {MAX_BYTES // MiB} MiB, too large for the description of a VM",
        id="xml-too-large",
        hint="is it the right file?",
    )


def find_text(element: Element | None, path: str) -> str | None:
    """The text of the first element at the path, stripped; None when there is none, or no text."""
    found = None if element is None else element.find(path)
    text = "" if found is None else (found.text or "").strip()
    return text or None


def attribute(element: Element | None, path: str, key: str) -> str | None:
    """An attribute of the first element at the path ("." is the element itself); None if empty."""
    found = None if element is None else element.find(path)
    text = "" if found is None else (found.get(key) or "").strip()
    return text or None


def number(text: str | None) -> int | None:
    """A short decimal number that is not negative; None for anything else."""
    return int(text) if text and DIGITS.fullmatch(text.strip()) else None


def _prolog(data: bytes) -> bytes:
    """What stands before the root element; of UTF-16 and UTF-32 too."""
    plain = data.replace(b"\0", b"")
    root = PROLOG.search(plain)
    return plain[: root.start()] if root else plain


def _doctype(name: str) -> SourceError:
    return SourceError(
        f"{name} has a document type (DOCTYPE), which no description of a VM needs",
        id="xml-doctype",
        hint="if you trust it, take out the DOCTYPE and the entities that it defines",
    )
