"""-i nbd: which guests it takes."""

from __future__ import annotations

import gzip
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.contract.input_suite import read_all
from tests.contract.test_inputs import detached_nbdkit
from tests.fakes.disks import disk_content
from v2v import registry
from v2v.errors import UsageError, V2VError
from v2v.inputs._plain import ImageOptions
from v2v.inputs.nbd import NbdInput
from v2v.job import ModuleChoice
from v2v.run import Run
from v2v.types import MiB


@pytest.mark.parametrize(
    "word",
    ["/srv/disk.img", "disk.img", "localhost:10809", "nbd://", "nbd:/s", "http://host/x", "?"],
)
def test_what_is_no_nbd_address(run: Run, word: str) -> None:
    with pytest.raises(UsageError) as caught:
        NbdInput(ImageOptions(), ["nbd://localhost/", word]).read_source(run)
    assert caught.value.id == "uri-scheme"
    assert word in str(caught.value)
    assert "-i disk" in (caught.value.hint or "")


@pytest.mark.parametrize("scheme", ["nbd+unix", "NBD+unix", "nbds+unix"])
def test_addresses_are_tried(run: Run, scheme: str) -> None:
    with pytest.raises(V2VError) as caught:
        NbdInput(ImageOptions(), [f"{scheme}:///?socket=/nowhere/s"]).read_source(run)
    assert caught.value.id == "nbd-unreachable"


def test_any_spelling_of_the_scheme(run: Run, tmp_path: Path, need_tool) -> None:
    need_tool("nbdkit")
    (tmp_path / "disk").write_bytes(disk_content())
    with detached_nbdkit(tmp_path / "disk", tmp_path / "s"):
        one = NbdInput(ImageOptions(), [f"NBD+Unix:///?socket={tmp_path}/s"])
        with one.serve(one.read_source(run), run) as (endpoint,):
            assert read_all(endpoint) == disk_content()


def test_it_has_the_options_of_disk() -> None:
    made = registry.make_input(ModuleChoice("nbd", {"-if": "qcow2"}), ("nbd://host/",))
    assert made.options == ImageOptions(format=made.options.format)
    assert made.options.format == "qcow2"


def test_an_export_that_begins_as_a_packed_file_does_is_the_disk(
    run: Run, tmp_path: Path, need_tool
) -> None:
    need_tool("nbdkit")
    (tmp_path / "system").write_bytes(disk_content())
    (tmp_path / "data").write_bytes(gzip.compress(disk_content()).ljust(MiB, b"\0"))
    with (
        detached_nbdkit(tmp_path / "system", tmp_path / "s"),
        detached_nbdkit(tmp_path / "data", tmp_path / "d"),
    ):
        words = [f"nbd+unix:///?socket={tmp_path / name}" for name in "sd"]
        one = NbdInput(ImageOptions(), words)
        with one.serve(one.read_source(run), run) as (_, endpoint):
            assert read_all(endpoint) == (tmp_path / "data").read_bytes()


def test_a_socket_with_a_space_and_a_plus_is_found_from_its_own_folder(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, need_tool
) -> None:
    need_tool("nbdkit")
    folder = tmp_path / "a b+c"
    folder.mkdir()
    (folder / "disk").write_bytes(disk_content())
    monkeypatch.chdir(folder)
    with detached_nbdkit(folder / "disk", folder / "s"):
        one = NbdInput(ImageOptions(), ["nbd+unix:///?socket=s"])
        source = one.read_source(run)
        with one.serve(source, run) as (endpoint,):
            assert read_all(endpoint) == disk_content()
    assert source.disks[0].location == f"nbd+unix:///?socket={quote(str(folder))}/s"
