"""-o nbd: servers that fail, certificates that do not fit, and what is written of the exports."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lxml import etree

from tests.contract.output_suite import GUEST, shared
from tests.fakes import nbd_server
from tests.fakes.disks import disk_content
from tests.fakes.nbd_server import Act
from tests.outputs.migrating import Jobs, refused
from tests.places import Servers, authority, certificate, nbd_servers, reserved_port
from v2v import nbd_client, nbdkit, options, registry
from v2v.copy.engine import copy_disk
from v2v.errors import UsageError
from v2v.job import CopyOptions
from v2v.output import Output
from v2v.types import DiskFormat, KiB, MiB, Source, SourceDisk, TargetDisk

CONTENT = disk_content()
ROOM = len(CONTENT)


@pytest.fixture
def jobs(tmp_path: Path, need_tool) -> Jobs:
    for name in ("nbdkit", "qemu-nbd"):
        need_tool(name)
    return Jobs(tmp_path / "jobs", "nbd")


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    with nbd_servers(tmp_path) as servers:
        yield servers


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "web.img"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return blank(tmp_path / "target", ROOM)


def blank(path: Path, size: int) -> Path:
    path.write_bytes(bytes(size))
    return path


def output_to(*uris: str) -> Output:
    cls = registry.find_output("nbd")
    return cls(options.parse(cls.Options, {"-oo disk": "\0".join(uris)}, module="-o nbd"))


@pytest.fixture
def port() -> Iterator[int]:
    with reserved_port() as port:
        yield port


# Servers ------------------------------------------------------------------------------------------


def test_a_verified_copy(jobs: Jobs, disk: Path, target: Path, servers: Servers) -> None:
    uri = servers.qemu_nbd(target)
    result = jobs.convert(disk, {"-os": uri}, copy=CopyOptions(verify=1.0))
    assert target.read_bytes() == CONTENT
    assert result.copies[0].verified == 1.0
    assert result.guest.start_hint
    assert jobs.warned() == []


def test_a_server_that_is_killed_and_started_again(
    disk: Path, target: Path, servers: Servers, run, jobs
) -> None:
    """In the middle of the copy. What it had not made durable is sent again."""
    uri = servers.qemu_nbd(target, name="server")
    output = output_to(uri)
    source = Source("web", "disk", (SourceDisk(str(disk), DiskFormat.RAW, ROOM),))
    output.check_source(source, run)
    disks = output.create_disks(source, [ROOM], run)
    with (
        nbdkit.serve("file", [str(disk)], run=run, name="source") as served,
        output.connect(disks, run) as sinks,
    ):
        sink = Killing(sinks[0], servers, target)
        small = shared(options=CopyOptions(request_size=64 * KiB))
        result = copy_disk(0, nbd_client.describe(served), sink, small)
    assert sink.killed and result.retries
    assert target.read_bytes() == CONTENT


class Killing:
    """A sink whose server is killed at the third write, and started again."""

    def __init__(self, sink, servers: Servers, target: Path) -> None:
        self._sink = sink
        self._servers = servers
        self._target = target
        self._left = 3
        self.killed = False

    def __getattr__(self, name: str):
        return getattr(self._sink, name)

    def write(self, offset: int, buffer: memoryview) -> None:
        self._left -= 1
        if self._left == 0:
            self._servers.kill("server")
            self._servers.qemu_nbd(self._target, name="server")
            self.killed = True
        self._sink.write(offset, buffer)


def test_nobody_there(jobs: Jobs, disk: Path, port: int, tmp_path: Path) -> None:
    refused(
        "target-unreachable",
        lambda: jobs.convert(disk, {"-os": f"nbd://127.0.0.1:{port}/web"}),
    )
    missing = f"nbd+unix:///?socket={tmp_path}/none"
    error = refused("target-unreachable", lambda: jobs.convert(disk, {"-os": missing}))
    assert "socket" in str(error.hint)


def test_an_export_that_is_not_there(jobs, disk, target, servers) -> None:
    uri = servers.qemu_nbd(target, "--export-name=web").replace("///", "///wbe")
    error = refused("target-unreachable", lambda: jobs.convert(disk, {"-os": uri}))
    assert "nbdinfo --list" in str(error.hint)


def test_a_read_only_export(jobs, disk, target, servers) -> None:
    uri = servers.qemu_nbd(target, "--read-only")
    refused("target-read-only", lambda: jobs.convert(disk, {"-os": uri}))


def test_an_export_that_is_too_small_and_one_that_is_larger(
    jobs, disk, tmp_path, servers: Servers
) -> None:
    small = servers.qemu_nbd(blank(tmp_path / "small", ROOM - MiB))
    refused("target-too-small", lambda: jobs.convert(disk, {"-os": small}))
    large = blank(tmp_path / "large", ROOM + MiB)
    jobs.convert(disk, {"-os": servers.qemu_nbd(large)})
    assert large.read_bytes() == CONTENT + bytes(MiB)
    assert "target-larger" in jobs.warned()


def test_an_export_that_holds_something(jobs, disk, target, servers) -> None:
    target.write_bytes(bytes(ROOM - 8) + b"precious")
    uri = servers.qemu_nbd(target)
    error = refused("target-not-empty", lambda: jobs.convert(disk, {"-os": uri}))
    assert "--force" in str(error.hint)
    assert target.read_bytes().endswith(b"precious")
    jobs.convert(disk, {"-os": uri, "--force": ""})
    assert target.read_bytes() == CONTENT


def test_a_server_that_falls_silent_is_not_waited_for(
    jobs, disk, tmp_path: Path, monkeypatch
) -> None:
    """It answers what it has data of, and never what that is."""

    class Impatient(nbd_client.ExportReader):
        """Once it is connected: that takes as long as a busy machine needs."""

        def read(self, offset: int, length: int) -> bytes:
            assert self._stall == 60.0
            self._stall = 0.3
            return super().read(offset, length)

    monkeypatch.setattr(nbd_client, "ExportReader", Impatient)
    with nbd_server.serve(tmp_path, bytes(ROOM - 8) + b"precious", "silent") as server:
        server.fault(Act.STALL)
        uri = f"nbd+unix:///?socket={server.path}"
        options = CopyOptions(stall_timeout=60.0)
        error = refused(
            "target-unreachable", lambda: jobs.convert(disk, {"-os": uri}, copy=options)
        )
        assert "silent" in error.message
        server.release()


def test_the_source_itself(jobs: Jobs, disk: Path, servers: Servers) -> None:
    uri = servers.qemu_nbd(disk)
    refused("target-is-source", lambda: jobs.convert(uri, {"-os": uri, "--force": ""}))
    assert disk.read_bytes() == CONTENT


@pytest.mark.parametrize("other", ["nbd://127.0.0.1:{}/", "nbd://localhost:{}"])
def test_one_export_by_two_names_is_one(
    other: str, jobs: Jobs, disk: Path, servers: Servers, port: int, tmp_path: Path
) -> None:
    ready = tmp_path / "tcp.pid"
    argv = ["nbdkit", "-f", "-i", "127.0.0.1", "-p", port, "-P", ready, "file", disk]
    servers.start("tcp", argv, ready)
    uri, same = f"nbd://localhost:{port}/", other.format(port)
    refused("target-is-source", lambda: jobs.convert(uri, {"-os": same, "--force": ""}))
    assert disk.read_bytes() == CONTENT
    two = Source("web", "disk", (SourceDisk("/x", DiskFormat.RAW, ROOM),) * 2)
    both = output_to(uri, same)
    refused("option-conflict", lambda: both.check_source(two, None))  # type: ignore[arg-type]


def test_one_socket_by_two_paths_is_one(
    jobs: Jobs, disk: Path, servers: Servers, tmp_path: Path
) -> None:
    uri = servers.qemu_nbd(disk, name="socket")
    (tmp_path / "link").symlink_to(tmp_path / "socket")
    same = uri.replace("/socket", "/link")
    refused("target-is-source", lambda: jobs.convert(uri, {"-os": same, "--force": ""}))


@pytest.mark.parametrize("export", ["a%01b", "a%0ab", "%EF%BF%BF"])
def test_an_export_that_no_domain_could_name(jobs: Jobs, disk: Path, export: str) -> None:
    refused("option-value", lambda: jobs.convert(disk, {"-os": f"nbd://localhost/{export}"}))


@pytest.mark.parametrize("place", ["/dev/sda", "http://host/disk", "nbd:host:10809", ""])
def test_what_is_no_address(jobs: Jobs, disk: Path, place: str) -> None:
    refused("uri-scheme", lambda: jobs.convert(disk, {"-os": place}))


def test_a_password_in_any_address_is_refused_and_not_repeated(jobs: Jobs, disk: Path) -> None:
    words = {"-oo disk": "1:nbd://host/a\0nbd://user:hunter2@host/b"}
    error = refused("password-in-uri", lambda: jobs.convert(disk, words))
    assert "hunter2" not in f"{error} {error.hint}"
    assert "?tls-psk-file=" in (error.hint or "")
    assert not jobs.folder.exists() or not list(jobs.folder.iterdir())


def test_files_of_an_address_are_absolute() -> None:
    """The job may be resumed from another folder."""
    with pytest.raises(UsageError) as caught:
        output_to("nbds://v2v@host/?tls-psk-file=keys.psk").check_source(
            Source("web", "disk", (SourceDisk("/x", DiskFormat.RAW),)),
            None,  # type: ignore[arg-type]  # refused before it is used
        )
    assert caught.value.id == "option-value"


# TLS ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """server and client, of one authority; stranger, of another; elsewhere, a wrong address."""
    folder = tmp_path_factory.mktemp("pki")
    ours, theirs = authority(folder / "ours"), authority(folder / "theirs")
    certificate(folder / "server", ours, "server")
    certificate(folder / "elsewhere", ours, "server", address="127.0.0.9")
    certificate(folder / "client", ours, "client")
    certificate(folder / "stranger", theirs, "client")
    certificate(folder / "distrustful", ours, "client")
    (folder / "distrustful" / "ca-cert.pem").write_bytes((theirs / "ca-cert.pem").read_bytes())
    (folder / "stranger" / "ca-cert.pem").write_bytes((ours / "ca-cert.pem").read_bytes())
    return folder


def serve_tls(
    servers: Servers, target: Path, certificates: Path, port: int, *, verify_peer: bool = True
) -> str:
    """nbdkit on TCP, which wants a certificate of its clients."""
    ready = target.parent / "tls.pid"
    tls = ["--tls=require", f"--tls-certificates={certificates}"]
    tls += ["--tls-verify-peer"] if verify_peer else []
    argv = ["nbdkit", "-f", "-i", "127.0.0.1", "-p", port, "-P", ready, *tls, "file", target]
    servers.start("tls", argv, ready)
    return f"nbds://127.0.0.1:{port}/"


def test_certificates(jobs, disk, target, servers, pki: Path, port: int, need_tool) -> None:
    need_tool("openssl")
    uri = serve_tls(servers, target, pki / "server", port)
    result = jobs.convert(disk, {"-os": f"{uri}?tls-certificates={pki / 'client'}"})
    assert target.read_bytes() == CONTENT
    (source,) = etree.parse(str(result.guest.metadata)).iterfind("devices/disk/source")
    assert source.get("tls") == "yes"


@pytest.mark.parametrize(
    ("server", "client"),
    [
        ("server", "stranger"),  # the server does not trust it
        ("server", "distrustful"),  # it does not trust the server
        ("elsewhere", "client"),  # the certificate is another host's
    ],
)
def test_certificates_that_do_not_fit(
    server: str, client: str, jobs, disk, target, servers, pki, port: int, need_tool
) -> None:
    need_tool("openssl")
    uri = serve_tls(servers, target, pki / server, port)
    words = {"-os": f"{uri}?tls-certificates={pki / client}"}
    error = refused("target-unreachable", lambda: jobs.convert(disk, words))
    assert "TLS" in str(error.hint) or "certificate" in str(error.hint), error.hint
    assert target.read_bytes() == bytes(ROOM)


def test_a_server_that_nobody_would_verify(
    jobs, disk, target, servers, pki, port: int, tmp_path, need_tool
) -> None:
    """libnbd would go on with any certificate."""
    need_tool("openssl")
    uri = serve_tls(servers, target, pki / "elsewhere", port, verify_peer=False)
    for words in ("", f"?tls-certificates={tmp_path}", f"?tls-certificates={tmp_path / 'none'}"):
        refused("tls-unverified", lambda words=words: jobs.convert(disk, {"-os": uri + words}))
        refused("tls-unverified", lambda words=words: jobs.convert(uri + words, {"-os": "nbd://x"}))
    assert target.read_bytes() == bytes(ROOM)


def test_no_encryption_where_the_server_wants_it(
    jobs, disk, target, servers, pki, port: int, need_tool
) -> None:
    need_tool("openssl")
    uri = serve_tls(servers, target, pki / "server", port).replace("nbds:", "nbd:")
    error = refused("target-unreachable", lambda: jobs.convert(disk, {"-os": uri}))
    assert "TLS" in str(error.hint)


# The description ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "source", "host"),
    [
        ("nbd://host", {"protocol": "nbd"}, {"name": "host"}),
        (
            "nbds://v2v@[::1]:10810/a%20%3Cb%3E%22",
            {"protocol": "nbd", "name": 'a <b>"', "tls": "yes"},
            {"name": "::1", "port": "10810"},
        ),
        (
            "nbd+unix:///web?socket=/run/a%26b",
            {"protocol": "nbd", "name": "web"},
            {"transport": "unix", "socket": "/run/a&b"},
        ),
    ],
)
def test_a_domain_names_the_exports(
    uri: str, source: dict[str, str], host: dict[str, str], run, tmp_path: Path, need_tool
) -> None:
    need_tool("virt-xml-validate")
    vm = Source('web <&> "', "disk", (SourceDisk("/x", DiskFormat.RAW, MiB),))
    output = output_to(uri)
    disks = (TargetDisk(uri, uri, DiskFormat.RAW, MiB),)
    ref = output.finalize(vm, GUEST, disks, run)
    (found,) = etree.parse(str(ref.metadata)).iterfind("devices/disk[@device='disk']")
    assert found.get("type") == "network"
    assert dict(found.find("source").attrib) == source
    assert dict(found.find("source/host").attrib) == host
    subprocess.run(["virt-xml-validate", str(ref.metadata), "domain"], check=True)
