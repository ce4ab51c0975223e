"""`v2v list` and `v2v undo` as users call them; libvirt's test driver is the host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cli.test_command import v2v
from tests.vcsim import Disk, vcsim
from v2v.cli.manifest import manifest_text
from v2v.job import ModuleChoice
from v2v.types import Finding, GuestSummary


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "vm.img"
    with path.open("wb") as stream:
        stream.write(bytes(510) + b"\x55\xaa")
        stream.truncate(1 << 20)
    return path


@pytest.fixture
def uri(tmp_path: Path, disk: Path) -> str:
    """web and db, which could be converted, and one that has no disk."""
    return host(tmp_path, {"web": disk, "db": disk, "empty": None})


def host(folder: Path, vms: dict[str, Path | None]) -> str:
    xml = "".join(
        f"<domain type='test'><name>{escape(name)}</name><memory>65536</memory>"
        f"<os><type>hvm</type></os><devices>{disk_xml(disk) if disk else ''}</devices></domain>"
        for name, disk in vms.items()
    )
    (folder / "node.xml").write_text(f"<node>{xml}</node>")
    return f"test://{folder}/node.xml"


def disk_xml(path: Path) -> str:
    return (
        f"<disk type='file' device='disk'><driver type='raw'/><source file='{path}'/>"
        "<target dev='vda' bus='virtio'/></disk>"
    )


def listed(uri: str, *words: str) -> Any:
    done = v2v("list", "-ic", uri, "--json", *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def names(uri: str, *words: str) -> list[str]:
    return [one["name"] for one in listed(uri, *words)]


def test_table_tells_what_converts_and_why_not(uri: str) -> None:
    done = v2v("list", "-ic", uri)
    assert done.returncode == 0
    heading, *rows, blank, verdict = done.stdout.splitlines()
    assert heading.split()[:3] == ["VM", "POWER", "DISKS"]
    assert [row.split()[0] for row in rows] == ["db", "empty", "web"]
    assert rows[0].endswith("yes") and rows[1].endswith("no: domain-no-disks")
    assert blank == "" and verdict.startswith("2 of 3 VMs could be converted.")
    assert "has no disk" not in done.stdout
    long = v2v("list", "-ic", uri, "--long").stdout
    assert "blocker: empty: the VM has no disk (domain-no-disks)" in long
    assert "hint: " in long


def test_json_has_every_field_of_every_vm(uri: str) -> None:
    web = listed(uri)[2]
    assert web == {
        "name": "web",
        "id": web["id"],
        "where": "",
        "power": "off",
        "disks": 1,
        "provisioned": web["provisioned"],
        "used": web["used"],
        "firmware": None,
        "cbt": None,
        "snapshots": [],
        "os": None,
        "memory": 64 << 20,
        "vcpus": 1,
        "findings": [],
        "convertible": True,
    }
    page = (Path(__file__).parents[2] / "docs" / "list.md").read_text()
    assert all(f"`{field}`" in page for field in web)


def test_vms_are_chosen_by_pattern_and_by_power(uri: str, tmp_path: Path, disk: Path) -> None:
    assert names(uri, "w*") == ["web"]
    assert names(uri, "w*", "[de]*") == ["db", "empty", "web"]
    assert names(uri, "WEB") == []
    odd = host(tmp_path, {"web [1]": disk, "web 1": disk})
    assert names(odd, "web [1]") == ["web 1", "web [1]"]
    uri = host(tmp_path, {"web": disk, "db": disk, "empty": None})
    assert names(uri, "--power", "on") == []
    assert names(uri, "--power", "off", "db") == ["db"]


def test_a_host_without_vms(tmp_path: Path) -> None:
    uri = host(tmp_path, {})
    done = v2v("list", "-ic", uri)
    assert (done.returncode, done.stdout) == (0, "no VM\n")
    assert listed(uri) == []


@pytest.mark.parametrize(
    ("words", "id", "code"),
    [
        (("-i", "disk"), "list-impossible", 2),
        (("-i", "disk", "web"), "list-impossible", 2),
        (("-ic", "test:///nowhere/node.xml"), "libvirt-failed", 4),
        (("-ic", "qemu+tcp://127.0.0.1/system"), "libvirt-transport", 2),
        (("--power", "half"), "option-value", 2),
        (("test:///x",), "usage", 2),
        (("--json", "--manifest"), "usage", 2),
        (("-io", "no-such=1"), "option-unknown", 2),
    ],
)
def test_bad_commands(words: tuple[str, ...], id: str, code: int) -> None:
    done = v2v("list", *words)
    assert done.returncode == code, done.stderr
    assert f"id: {id}" in done.stderr
    assert done.stdout == ""


def test_names_cannot_drive_the_terminal_and_long_ones_are_cut(tmp_path: Path, disk: Path) -> None:
    turned = "abc\N{RIGHT-TO-LEFT OVERRIDE}def"
    wide = "仮想マシン" * 12
    uri = host(tmp_path, {turned: disk, "n" * 200: disk, wide: disk})
    for words in ((), ("--long",), ("--manifest",)):
        assert turned[3] not in v2v("list", "-ic", uri, *words).stdout
    assert sorted(names(uri)) == sorted([turned, "n" * 200, wide])


@pytest.mark.parametrize("width", [54, 60, 80, 100, 130])
def test_table_fits_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.cells import cell_len

    from v2v.cli.listing import _table_text

    monkeypatch.setenv("COLUMNS", str(width))
    blocker = Finding("blocker", "vsphere-disk-encrypted", "it is")
    sizes = {"disks": 2, "provisioned": 1 << 40, "used": 123 << 30, "snapshots": ("a",)}
    guests = [
        GuestSummary(name="n" * 200, id="1", **sizes),
        GuestSummary(name="仮想マシン" * 12, id="2", findings=(blocker,), **sizes),
    ]
    lines = _table_text(guests).splitlines()
    assert all(cell_len(line) <= width for line in lines[:3])
    assert all("…" in line for line in lines[1:3])
    assert lines[0].startswith("VM ") and lines[0].endswith("CONVERTS")
    assert ("CBT" in lines[0]) == (width > 100)


def test_two_vms_of_one_name_are_told_apart_by_their_ids() -> None:
    from v2v.cli.listing import _table_text

    text = _table_text([GuestSummary(name="web", id=id) for id in ("vm-1", "vm-2")])
    assert "web (vm-1)" in text and "web (vm-2)" in text


def test_manifest_is_yaml_of_what_was_listed(uri: str) -> None:
    done = v2v("list", "-ic", uri, "--manifest")
    document = yaml.safe_load(done.stdout)
    assert document["version"] == 1
    assert document["defaults"]["input"] == {"mode": "libvirt", "uri": uri}
    db, empty, web = document["vms"]
    assert [one["name"] for one in (db, empty, web)] == ["db", "empty", "web"]
    assert "skip" not in web and web["source"]["power"] == "off"
    assert empty["skip"] is True and "domain-no-disks" in empty["reason"]


TEXTS = st.text(st.characters(), max_size=40) | st.sampled_from(
    [
        "yes",
        "0x10",
        "- a",
        "#c",
        "a: b",
        "|",
        ">",
        "!!python/object:os.system",
        "~",
        "&a *a",
        "\x85",
    ]
)


@settings(deadline=None)
@given(TEXTS, TEXTS, TEXTS)
def test_manifest_gives_back_whatever_the_source_says(name: str, where: str, text: str) -> None:
    guest = GuestSummary(
        name=name,
        id="vm-1",
        where=where,
        snapshots=(name,),
        findings=(Finding("blocker", "some-id", text),),
    )
    (vm,) = yaml.safe_load(manifest_text([guest], ModuleChoice("libvirt", {})))["vms"]
    whole = [
        one.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        for one in (name, where, text)
    ]
    assert vm["name"] == whole[0]
    assert vm["source"].get("where", "") == whole[1]
    assert vm["reason"] == f"{whole[2]} (some-id)"
    assert vm["source"]["snapshots"] == [whole[0]]


def test_undo_without_anything_to_undo(tmp_path: Path) -> None:
    done = v2v("undo", "--list", jobs=tmp_path / "jobs")
    assert (done.returncode, done.stdout) == (0, "nothing to undo\n")
    for words, code in (((), 2), (("no-such-job",), 9), (("--list", "../x"), 9)):
        assert v2v("undo", *words, jobs=tmp_path / "jobs").returncode == code


@pytest.mark.parametrize("esx", [False, True])
def test_vms_of_vmware(esx: bool, tmp_path: Path) -> None:
    with vcsim(tmp_path / "sim", esx=esx) as vc:
        web = vc.create_vm("web <1>", disks=[Disk(), Disk()], firmware="efi", cbt=True)
        web.snapshot("before")
        vc.create_vm("db").power(on=True)
        options = ("-ip", str(vc.password_file), "-io", f"cafile={vc.cafile}")
        db, first = listed(vc.uri(), *options)
        wrong = v2v("list", "-ic", vc.uri(), *options[2:], "-ip", str(vc.cafile))
        manifest = v2v("list", "-ic", vc.uri(), *options, "--manifest", "web*").stdout
        on = names(vc.uri(), *options, "--power", "on")
        by_id = names(vc.uri(), *options, first["id"])
    assert (db["name"], db["power"], db["disks"], db["firmware"]) == ("db", "on", 1, "bios")
    assert [one["id"] for one in db["findings"]] == ["source-running"]
    assert db["convertible"] and first["convertible"]
    assert (first["name"], first["power"], first["disks"]) == ("web <1>", "off", 2)
    assert (first["firmware"], first["cbt"], first["snapshots"]) == ("uefi", True, ["before"])
    assert first["provisioned"] == 2 << 20
    assert on == ["db"] and by_id == ["web <1>"]
    assert wrong.returncode == 4 and "id: vsphere-auth" in wrong.stderr
    document = yaml.safe_load(manifest)
    assert document["defaults"]["input"]["mode"] == "vsphere"
    assert document["defaults"]["input"]["password_file"] == str(vc.password_file)
    assert [(vm["name"], vm["id"]) for vm in document["vms"]] == [("web <1>", first["id"])]
    assert vc.password not in manifest
