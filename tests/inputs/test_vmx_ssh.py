"""VMs of VMware on a host that is reached over SSH: a real SSH server, with a tree like ESXi's."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from fixtures.vmdk import write_vmdk
from fixtures.vmfs import add_datastore, make_volumes
from fixtures.vmx import disk, write_chain, write_vm
from tests.contract.input_suite import children, read_all
from tests.fakes.disks import disk_content
from tests.sshd import Sshd, sshd
from v2v import registry
from v2v.errors import V2VError
from v2v.events import Event, Message, Warned
from v2v.inputs.vmx import VmxInput, VmxOptions
from v2v.job import Job, ModuleChoice
from v2v.run import Run

CONTENT = disk_content(1)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("ssh")) as server:
        yield server


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, need_tool) -> None:
    """Nothing of this host's own ~/.ssh and agent counts."""
    need_tool("nbdkit")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


@pytest.fixture
def datastore(tmp_path: Path) -> Path:
    return add_datastore(make_volumes(tmp_path), "My DS [1] 50% é")


@pytest.fixture
def vm(datastore: Path) -> Path:
    """One with a snapshot."""
    top = write_chain(datastore / "web", [CONTENT, disk_content(2)])[-1]
    entries = disk("scsi0:0", top.name) | {"displayName": "Web server"}
    return write_vm(datastore / "web", entries, snapshots=[("old", {"scsi0:0": "web.vmdk"})])


def made(host: Sshd, word: str, **options: object) -> VmxInput:
    given = {"known_hosts": host.known_hosts, "identity": host.identity, **options}
    return VmxInput(VmxOptions(**given), [word])  # type: ignore[arg-type]


def uri(host: Sshd, path: Path, scheme: str = "ssh") -> str:
    return f"{scheme}://{host.user}@127.0.0.1:{host.port}{quote(str(path))}"


def served(vm: VmxInput, run: Run) -> list[bytes]:
    with vm.serve(vm.read_source(run), run) as endpoints:
        return [read_all(endpoint) for endpoint in endpoints]


def refused(id: str, vm: VmxInput, run: Run) -> V2VError:
    with pytest.raises(V2VError) as caught:
        served(vm, run)
    assert caught.value.id == id, caught.value
    assert caught.value.hint
    assert children() == set()
    return caught.value


# What is read -------------------------------------------------------------------------------------


def test_a_vm_by_its_address_by_its_folder_and_by_its_name(
    host: Sshd, datastore: Path, vm: Path, run: Run
) -> None:
    sources = [
        made(host, uri(host, vm)).read_source(run),
        made(host, uri(host, vm.parent), transport="ssh").read_source(run),
        made(host, "Web server", uri=uri(host, datastore, "esx+ssh")).read_source(run),
        made(host, str(vm), uri=uri(host, datastore.parent, "esx+ssh")).read_source(run),
    ]
    assert sources.count(sources[0]) == len(sources)
    assert (sources[0].name, sources[0].snapshots) == ("Web server", ("old",))
    assert [disk.storage for disk in sources[0].disks] == [datastore.name]


def test_a_disk_is_read_as_it_is_and_as_it_was(
    host: Sshd, vm: Path, run: Run, events_seen: list[Event]
) -> None:
    assert served(made(host, uri(host, vm)), run) == [disk_content(2)]
    told = [event.text for event in events_seen if isinstance(event, Message)]
    assert [f"ssh://{host.user}@127.0.0.1:{host.port}: read by a program" in t for t in told] == [
        True
    ]
    (vm.parent / "web.vmx.lck").touch()
    refused("source-running", made(host, uri(host, vm)), run)
    assert served(made(host, uri(host, vm), snapshot="old"), run) == [CONTENT]


def test_a_listing(host: Sshd, datastore: Path, vm: Path, run: Run) -> None:
    place = uri(host, datastore.parent, "esx+ssh")
    (one,) = made(host, "*", uri=place).list_guests(run)
    assert (one.name, one.id, one.power, one.provisioned) == (
        *("Web server", str(vm), "off"),
        len(CONTENT),
    )
    assert made(host, one.id, uri=place).read_source(run).name == one.name


def test_names_are_no_paths_of_this_host() -> None:
    """A job is journaled, so that it can be resumed from another folder."""
    guests = {"esx+ssh://h": ("web",), "": (str(Path.cwd() / "web"),)}
    for place, expected in guests.items():
        choice = ModuleChoice("vmx", {"-ic": place} if place else {})
        job = Job(input=choice, output=ModuleChoice("null"), guests=("web",))
        assert registry.anchored(job).guests == expected
    assert registry.guess_input("ssh://root@esxi/vmfs/volumes/a/b/b.vmx") == "vmx"


# What is refused ----------------------------------------------------------------------------------


def test_what_is_not_there(host: Sshd, datastore: Path, vm: Path, run: Run) -> None:
    gone = refused("source-missing", made(host, uri(host, datastore / "gone.vmx")), run)
    assert f"{datastore}/gone.vmx" in gone.message
    nowhere = uri(host, datastore / "nowhere", "esx+ssh")
    refused("source-missing", made(host, "web", uri=nowhere), run)
    there = uri(host, datastore, "esx+ssh")
    hint = refused("vmx-vm-unknown", made(host, "Web servr", uri=there), run).hint
    assert hint == "did you mean Web server?"


def test_a_part_of_a_disk_that_is_not_there(host: Sshd, vm: Path, run: Run) -> None:
    vm.with_name("web-flat.vmdk").unlink()
    error = refused("image-file-missing", made(host, uri(host, vm)), run)
    assert "web-flat.vmdk" in error.message


def test_a_chain_that_is_broken(host: Sshd, vm: Path, run: Run) -> None:
    write_vmdk(vm.parent, "web", CONTENT, cid=77)
    refused("vmdk-chain-broken", made(host, uri(host, vm)), run)


def test_hosts_whose_key_is_not_known(host: Sshd, vm: Path, run: Run, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    refused("ssh-host-key", made(host, uri(host, vm), known_hosts=empty), run)
    other = "SHA256:" + "A" * 43
    refused("ssh-host-key", made(host, uri(host, vm), host_key=other), run)


def test_users_that_do_not_get_in(host: Sshd, vm: Path, run: Run, tmp_path: Path) -> None:
    address = uri(host, vm)
    refused("ssh-login", made(host, address.replace(host.user, "nobody-there")), run)
    password = tmp_path / "password"
    password.write_text("wrong\n")
    error = refused("ssh-login", made(host, address, identity=None, password_file=password), run)
    assert "wrong" not in f"{error.message} {error.hint}"


@pytest.mark.parametrize("reader", ["helper", "sftp", "dd"])
def test_a_part_of_a_disk_that_the_user_may_not_read(
    run: Run, reader: str, public: tuple[Sshd, Path]
) -> None:
    host, folder = public
    path = write_vm(
        folder / "web", disk("scsi0:0", write_vmdk(folder / "web", "web", CONTENT).name)
    )
    data = path.with_name("web-flat.vmdk")
    data.chmod(0)
    error = refused("source-unreadable", made(host, uri(host, path), reader=reader), run)
    assert str(data) in error.message


@pytest.fixture
def public() -> Iterator[tuple[Sshd, Path]]:
    """A host, and a user who is not root, and a folder that everybody may look into."""
    folder = Path(tempfile.mkdtemp(prefix="v2v-vmx-"))
    folder.chmod(0o755)
    try:
        with sshd(folder / "ssh", user="nobody" if os.geteuid() == 0 else "") as host:
            yield host, add_datastore(make_volumes(folder), "ds")
    finally:
        shutil.rmtree(folder)


def test_folders_that_may_not_be_looked_into_are_told(
    run: Run, public: tuple[Sshd, Path], events_seen: list[Event]
) -> None:
    host, datastore = public
    write_vm(datastore / "web", {"displayName": "web"})
    (datastore / "secret").mkdir(mode=0)
    there = made(host, "*", uri=uri(host, datastore.parent, "esx+ssh"))
    assert [one.name for one in there.list_guests(run)] == ["web"]
    (told,) = [event for event in events_seen if isinstance(event, Warned)]
    assert (told.id, "ds/secret" in told.text) == ("datastore-unseen", True)
    refused("source-unreadable", made(host, uri(host, datastore / "secret/x.vmx")), run)
