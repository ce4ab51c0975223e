"""Hostile XML of a libvirt domain: entities, other documents, domains with random changes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree

from tests.inputs.domains import DISK, failed, source
from tests.inputs.golden import FOLDER
from v2v.errors import V2VError
from v2v.inputs._domain import read_domain
from v2v.inputs._domain.addresses import disk_uri
from v2v.inputs._domain.disks import DomainDisk
from v2v.inputs._domain.sources import source_disk
from v2v.inputs._images import Access
from v2v.inputs._xml import MAX_BYTES
from v2v.run import Run

ENTITY = "<!DOCTYPE domain [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>"
LAUGHS = "<!DOCTYPE domain [<!ENTITY a 'aaaaaaaaaa'>{}]>".format(
    "".join(
        f"<!ENTITY {b} '{f'&{a};' * 10}'>" for a, b in zip("abcdefghi", "bcdefghij", strict=True)
    )
)


@pytest.mark.parametrize(
    ("xml", "id"),
    [
        ("", "xml-invalid"),
        ("no xml", "xml-invalid"),
        ("<domain><devices></domain>", "xml-invalid"),
        ("<domain>&undefined;</domain>", "xml-invalid"),
        (b"\xff\xfe\x00", "xml-invalid"),
        ("<?xml version='1.0' encoding='martian'?><domain/>", "xml-invalid"),
        ("<a>" * 5000 + "</a>" * 5000, "xml-invalid"),
        (f"{ENTITY}<domain><name>&x;</name></domain>", "xml-doctype"),
        (f"{ENTITY}<domain/>".encode("utf-16"), "xml-doctype"),
        (f"<!-- <a> -->{ENTITY}<domain/>", "xml-doctype"),
        (f"{LAUGHS}<domain><name>&j;</name></domain>", "xml-doctype"),
        (f"{LAUGHS}<domain type='&j;'/>", "xml-doctype"),
        (f"<!-- <a> -->{LAUGHS}<domain type='&j;'/>", "xml-doctype"),
        ("<!DOCTYPE domain SYSTEM 'http://127.0.0.1:1/x.dtd'><domain/>", "xml-doctype"),
        (b"<domain>" + b" " * MAX_BYTES + b"</domain>", "xml-too-large"),
        ("<domainsnapshot><domain/></domainsnapshot>", "domain-not-a-domain"),
        ("<domstatus state='running'><domain/></domstatus>", "domain-not-a-domain"),
        ("<network/>", "domain-not-a-domain"),
        ("<Envelope xmlns='http://schemas.dmtf.org/ovf/envelope/1'/>", "domain-not-a-domain"),
        ("<domain/>", "domain-no-disks"),
        ("<domain><devices><disk device='cdrom'/></devices></domain>", "domain-no-disks"),
        (f"<domain><devices>{DISK * 1001}</devices></domain>", "domain-invalid"),
        (f"<domain><devices>{'<interface/>' * 1001}</devices></domain>", "domain-invalid"),
    ],
)  # fmt: skip
def test_what_is_no_domain(run: Run, xml: bytes | str, id: str) -> None:
    failed(run, xml, id)


def test_the_message_says_where_the_xml_is_broken(run: Run) -> None:
    message = failed(run, "<domain>\n<devices></domain>", "xml-invalid").message
    assert "line 2" in message
    assert "<string>" not in message


def test_the_hint_says_what_to_give_instead(run: Run) -> None:
    assert "shut down" in str(failed(run, "<domstatus/>", "domain-not-a-domain").hint)
    assert "dumpxml" in str(failed(run, "<domainsnapshot/>", "domain-not-a-domain").hint)
    assert "-i ova" in str(failed(run, "<Envelope/>", "domain-not-a-domain").hint)


def test_a_doctype_in_a_text_is_text(run: Run) -> None:
    inside = "<description><![CDATA[<!DOCTYPE html>]]></description>"
    assert source(run, inside).description == "<!DOCTYPE html>"


def test_comments_do_not_cut_texts(run: Run) -> None:
    assert source(run, "<name>we<!-- x -->b<?y z?></name>").name == "web"


# Hostile XML --------------------------------------------------------------------------------------

GOLDEN = {
    path.stem: etree.fromstring(path.read_bytes())
    for path in sorted(FOLDER.glob("*.xml"))
    if b"<domain" in path.read_bytes()
}
ODD = """0 -1 99999999999999999999999 file network nbd rbd raw qcow2 yes no disk [ %00 a://b
../../etc/passwd /dev/null \u202e"""
WORDS = st.sampled_from(["", "x" * 5000, *ODD.split()]) | st.text(
    st.characters(min_codepoint=32, max_codepoint=0xD7FF), max_size=8
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A golden domain with a few elements and attributes dropped, doubled, moved or replaced."""
    root = deepcopy(GOLDEN[draw(st.sampled_from(sorted(GOLDEN)))])
    for _ in range(draw(st.integers(1, 6))):
        elements = [e for e in root.iter() if isinstance(e.tag, str)]
        element = draw(st.sampled_from(elements))
        _mutate(element, draw(st.sampled_from(elements)), draw)
    data = etree.tostring(root)
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.binary(max_size=4)) + data[at + draw(st.integers(0, 20)) :]
    return data


def _mutate(element: etree._Element, other: etree._Element, draw: st.DrawFn) -> None:
    kind = draw(st.sampled_from(["drop", "double", "graft", "text", "attribute", "cut", "tag"]))
    parent = element.getparent()
    if kind == "drop" and parent is not None:
        parent.remove(element)
    elif kind == "double" and parent is not None:
        parent.append(deepcopy(element))
    elif kind == "graft":
        element.append(deepcopy(other))
    elif kind == "text":
        element.text = draw(WORDS)
    elif kind == "attribute" and element.attrib:
        element.set(draw(st.sampled_from(sorted(map(str, element.attrib)))), draw(WORDS))
    elif kind == "cut" and element.attrib:
        del element.attrib[draw(st.sampled_from(sorted(map(str, element.attrib))))]
    elif kind == "tag":
        element.tag = other.tag


@pytest.fixture(scope="module")
def shared_run() -> Iterator[Run]:
    with tempfile.TemporaryDirectory() as folder, Run.create(Path(folder), "test") as run:
        yield run


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=mutated())
def test_any_change_of_a_domain_gives_a_source_or_an_error(shared_run: Run, data: bytes) -> None:
    try:
        found = read_domain(data, "test.xml", shared_run, mode="libvirtxml")
    except V2VError as exc:
        assert exc.hint
        return
    assert found.source.name
    for one in found.disks:
        _only_errors_of_ours(one, shared_run)


def _only_errors_of_ours(one: DomainDisk, run: Run) -> None:
    """Addresses are made, and nothing is connected to."""
    try:
        if one.kind == "network":
            assert "://" in disk_uri(one)
        else:
            source_disk(one, Access(strict=True), run, base=Path("/nowhere"))
    except V2VError as exc:
        assert exc.hint
