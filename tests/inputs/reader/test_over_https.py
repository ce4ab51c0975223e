"""Disks that nbdkit serves by our own code, from a host's /folder."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fixtures.vmdk import write_vmdk
from tests.contract.input_suite import InputCase, InputSuite, children, read_all
from tests.fakes.disks import disk_content
from tests.fakes.vsphere.certificates import certificate
from tests.fakes.vsphere.folder import Fault, Folder
from tests.fakes.vsphere.proxy import serve_front
from tests.inputs.reader.reading import ReaderInput
from v2v import nbd_client
from v2v.cancel import Cancel
from v2v.errors import Cancelled, CopyError, V2VError
from v2v.inputs._reader.recipe import Recipe
from v2v.inputs._reader.serve import read_vmdk, serve_recipe
from v2v.inputs._vsphere.place import VspherePlace
from v2v.run import Run
from v2v.types import MiB

CONTENT = disk_content()
NEWER = CONTENT[: 2 * MiB] + b"\7" * MiB + CONTENT[3 * MiB :]
USER, PASSWORD = "root", "it's 100% secret"
NAMES = ("web", "web-000001")


@dataclass(frozen=True)
class Host:
    files: Folder
    recipes: tuple[Recipe, ...]
    password_file: Path
    root: Path


@pytest.fixture
def host(tmp_path: Path, need_tool) -> Iterator[Host]:
    """An ESXi host with a VM that has a snapshot."""
    need_tool("nbdkit")
    root, password_file = tmp_path / "ds", tmp_path / "password"
    write_vmdk(root / "web 1%", "web", CONTENT)
    write_vmdk(
        root / "web 1%",
        "web-000001",
        NEWER,
        below=CONTENT,
        parent="web.vmdk",
        kind="vmfsSparse",
        cid=2,
        parent_cid=1,
    )
    password_file.write_text(PASSWORD)
    shown = certificate(tmp_path)
    files = Folder(USER, PASSWORD, {"ha-datacenter"}, {"data store": root})
    with serve_front(files, shown.context) as front:
        place = VspherePlace(
            scheme="esx",
            server="127.0.0.1",
            port=front.server_port,
            user=USER,
            password_file=password_file,
            cafile=shown.cafile,
        )
        folder = "/vmfs/volumes/data store/web 1%"
        recipes = [Recipe(f"{folder}/{name}.vmdk", (folder,), folder=place) for name in NAMES]
        yield Host(files, tuple(recipes), password_file, root)


class TestOverHttps(InputSuite):
    """The contract of inputs."""

    @pytest.fixture
    def case(self, host: Host) -> InputCase:
        return InputCase(
            ReaderInput(*host.recipes), [CONTENT, NEWER], name="reader", sources=[host.root]
        )


def refused(id: str, recipe: Recipe, run: Run) -> V2VError:
    with pytest.raises(V2VError) as caught, serve_recipe(recipe, run, "disk"):
        pass
    assert caught.value.id == id, caught.value
    assert PASSWORD not in str(caught.value)
    assert children() == set()
    return caught.value


def test_requests_are_as_the_server_likes_them(host: Host, run: Run) -> None:
    with serve_recipe(host.recipes[0], run, "disk") as endpoint:
        assert endpoint.request_size == 4 * MiB
    with serve_recipe(replace(host.recipes[0], through_vcenter=True), run, "disk") as endpoint:
        assert endpoint.request_size == 2 * MiB


def test_who_may_not_read_is_told_at_once_why(host: Host, run: Run) -> None:
    host.password_file.write_text("wrong")
    error = refused("vsphere-auth", host.recipes[0], run)
    with pytest.raises(V2VError) as caught:
        read_vmdk(host.recipes[0], run)
    assert str(caught.value) == str(error)


def test_a_certificate_that_is_not_trusted(host: Host, run: Run) -> None:
    place = host.recipes[0].folder
    assert place is not None
    stranger = replace(host.recipes[0], folder=replace(place, cafile=None))
    refused("tls-untrusted", stranger, run)


def test_a_session_that_ends_is_made_anew(host: Host, run: Run) -> None:
    with serve_recipe(host.recipes[1], run, "disk") as endpoint:
        host.files.expire_sessions()
        assert read_all(endpoint) == NEWER


def test_secrets_stay_in_their_file(host: Host, run: Run, tmp_path: Path) -> None:
    with serve_recipe(host.recipes[0], run, "disk"):
        (pid,) = children()
        for name in ("cmdline", "environ"):
            assert PASSWORD.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()
    for path in (*run.folder.rglob("*"), *run.tmp.rglob("*")):
        if path.is_file():
            assert PASSWORD.encode() not in path.read_bytes()


def test_the_end_does_not_wait_for_a_host_that_is_silent(
    host: Host, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    import nbd

    with pytest.raises(CopyError), serve_recipe(host.recipes[0], run, "disk") as endpoint:
        host.files.always = Fault(hang=True)
        handle = nbd_client.connect(endpoint)
        handle.aio_pread(nbd.Buffer(512), 0)
        assert host.files.hanging.wait(60)
        nbd_client.hang_up(handle)  # nbdkit waits for clients that are still there
        raise CopyError("stopped", id="copy-stalled")
    assert "killed" not in caplog.text  # after ten seconds of waiting
    assert children() == set()


def test_cancelling_ends_a_start_that_hangs(host: Host, tmp_path: Path) -> None:
    host.files.always = Fault(hang=True)
    cancel = Cancel()

    def cancel_then() -> None:
        host.files.hanging.wait(60)
        cancel.cancel()

    thread = threading.Thread(target=cancel_then)
    thread.start()
    with (
        Run.create(tmp_path / "jobs", "x", cancel=cancel) as run,
        pytest.raises(Cancelled),
        serve_recipe(host.recipes[0], run, "disk"),
    ):
        pass
    thread.join()
    assert children() == set()
