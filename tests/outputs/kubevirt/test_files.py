"""-o kubevirt into a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.output_suite import GUEST
from tests.contract.test_outputs import make
from tests.fakes.kubernetes.schema import problems
from v2v.errors import TargetError, UsageError
from v2v.events import Warned
from v2v.output import Output
from v2v.types import DiskFormat, GuestRef, Nic, Source, SourceDisk

SIZES = (1024 * 1024, 512)


def source(name: str = "Web Server", **changes: Any) -> Source:
    disks = tuple(SourceDisk("/x", DiskFormat.RAW, size) for size in SIZES)
    return Source(name=name, input="disk", disks=disks, **changes)


def output(folder: Path, **more: str) -> Output:
    return make("kubevirt", {"-os": str(folder), **more})


def migrated(made: Output, vm: Source, run) -> GuestRef:
    made.check_source(vm, run)
    disks = made.create_disks(vm, SIZES, run)
    return made.finalize(vm, GUEST, disks, run)


def test_the_manifest_names_the_files_and_how_they_get_there(tmp_path, run, events_seen) -> None:
    made = output(tmp_path, **{"-oo namespace": "vms", "-of": "qcow2"})
    ref = migrated(made, source(), run)
    text = (tmp_path / "Web Server.yaml").read_text()
    first, second, vm = yaml.safe_load_all(text)
    assert [problems(one) for one in (first, second, vm)] == ["", "", ""]
    assert first["metadata"]["annotations"]["v2v-file"] == "Web Server-sda"
    assert second["metadata"]["name"] == "web-server-sdb"
    assert {one["metadata"]["namespace"] for one in (first, second, vm)} == {"vms"}
    upload = "virtctl -n vms image-upload dv web-server-sda --no-create "
    assert f"#     {upload}'--image-path=./Web Server-sda'" in text
    assert ref.start_hint is not None and upload in ref.start_hint
    assert ref.start_hint.endswith("virtctl -n vms start web-server")
    assert [e.id for e in events_seen if isinstance(e, Warned)] == ["kubevirt-name"]


def test_a_guest_that_shall_run_waits_for_its_disks_alone(tmp_path, run) -> None:
    ref = migrated(output(tmp_path, **{"--start": ""}), source("web"), run)
    *_, vm = yaml.safe_load_all((tmp_path / "web.yaml").read_text())
    assert vm["spec"]["runStrategy"] == "Always"
    assert ref.start_hint is not None and "virtctl start" not in ref.start_hint


def test_preallocation_is_asked_of_the_cluster_too(tmp_path, run) -> None:
    migrated(output(tmp_path, **{"-oa": "preallocated"}), source("web"), run)
    first, *_ = yaml.safe_load_all((tmp_path / "web.yaml").read_text())
    assert first["spec"]["preallocation"] is True


def test_a_raw_disk_that_cdi_would_take_for_something_else_is_told(
    tmp_path, run, events_seen
) -> None:
    made = output(tmp_path)
    disks = made.create_disks(source("web"), SIZES, run)
    with Path(disks[1].working).open("r+b") as file:
        file.write(b"QFI\xfb")
    for _ in range(2):
        made.finalize(source("web"), GUEST, disks, run)
    told = [e for e in events_seen if isinstance(e, Warned)]
    assert {e.id for e in told} == {"kubevirt-guessed"} and "disk 2" in told[0].text


def test_cards_that_cannot_be_are_refused_before_anything(tmp_path, run) -> None:
    nics = (Nic(network="LAN 1"), Nic(network="LAN 2"))
    with pytest.raises(TargetError, match="pod network") as error:
        output(tmp_path).check_source(source(nics=nics), run)
    assert error.value.id == "target-network"


def test_it_can_be_booted_here_and_puts_all_disks_into_one_place(tmp_path) -> None:
    made = output(tmp_path)
    assert made.bootable and not made.per_disk_storage and made.can_rewrite
    into = make("kubevirt", {"-oc": "https://c:6443"})
    assert not into.bootable and into.per_disk_storage and into.can_rewrite
    compressed = make("kubevirt", {"-oc": "https://c:6443", "-oo compressed": ""})
    assert not compressed.can_rewrite


@pytest.mark.parametrize(
    ("words", "id"),
    [
        ({}, "option-required"),
        ({"-os": "/x", "-op": "/t"}, "option-useless"),
        ({"-os": "/x", "-oo context": "a"}, "option-useless"),
        ({"-os": "/x", "-oo cafile": "/c"}, "option-useless"),
        ({"-os": "/x", "-oo upload-proxy": "https://p"}, "option-useless"),
        ({"-os": "/x", "-oo verifypeer": "no"}, "option-useless"),
        ({"-os": "/x", "-oo staging": "/s"}, "option-useless"),
        ({"-oc": "https://c", "--force": ""}, "option-useless"),
        ({"-oc": "https://c", "-oo context": "a"}, "option-useless"),
        ({"-oo kubeconfig": "/k", "-op": "/t"}, "option-useless"),
        ({"-oo kubeconfig": "/k", "-oo cafile": "/c"}, "option-useless"),
        ({"-oo kubeconfig": "/k", "-oc": "https://c"}, "option-conflict"),
        ({"-oc": "https://c", "-of": "raw", "-oo compressed": ""}, "option-conflict"),
        ({"-oc": "http://c"}, "option-value"),
        ({"-oc": "https://c", "-oo upload-proxy": "http://p"}, "option-value"),
        ({"-oc": "https://c", "-os": "Not A Class"}, "option-value"),
        ({"-os": "/x", "-oo namespace": "Vms"}, "option-value"),
        ({"-os": "/x", "-oo namespace": "a\nb"}, "option-value"),
        ({"-os": "/x", "-oo timezone": "x y"}, "option-value"),
    ],
)
def test_words_that_do_not_go_together(words: dict[str, str], id: str) -> None:
    with pytest.raises(UsageError) as error:
        make("kubevirt", words)
    assert error.value.id == id and error.value.hint
