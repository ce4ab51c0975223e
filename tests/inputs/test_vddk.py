"""Disks through nbdkit's vddk plugin, in whose place there is one of ours."""

from __future__ import annotations

import hashlib
import http.server
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.contract.input_suite import children, read_all
from tests.fakes.disks import disk_content
from tests.fakes.vddk.host import PASSWORD, THUMBPRINT, USER, VddkHost, vddk_host
from v2v import nbd_client, nbdkit
from v2v.errors import HostError, UsageError, V2VError
from v2v.inputs._vsphere.place import VspherePlace
from v2v.inputs._vsphere.vddk import VddkOptions, serve_vddk
from v2v.run import Run
from v2v.types import MiB

CONTENTS = [disk_content(), disk_content(seed=1)]
PATHS = ["[ds 1] web, é/web.vmdk", "[ds 1] web, é/web_1.vmdk"]
OPTIONS = VddkOptions(vddk_thumbprint=THUMBPRINT)


@pytest.fixture
def host(tmp_path: Path, need_tool, monkeypatch: pytest.MonkeyPatch) -> Iterator[VddkHost]:
    need_tool("nbdkit")
    files = [tmp_path / str(index) for index in range(len(PATHS))]
    for file, content in zip(files, CONTENTS, strict=True):
        file.write_bytes(content)
    host = vddk_host(
        tmp_path / "host",
        {**dict(zip(PATHS, files, strict=True)), "[ds] locked/locked.vmdk": files[0]},
        locked=["[ds] locked/locked.vmdk"],
    )
    monkeypatch.setenv("PATH", str(host.folder), prepend=":")
    monkeypatch.setenv("VDDK_FAKE", str(host.world))
    nbdkit._config.cache_clear()
    yield host
    nbdkit._config.cache_clear()


@pytest.fixture
def place(host: VddkHost) -> VspherePlace:
    return VspherePlace(
        scheme="vpx",
        server="vcenter.invalid",
        user=USER,
        path="DC",
        password_file=host.password_file,
    )


def refused(id: str, run: Run, place: VspherePlace, options: VddkOptions, *paths: str) -> V2VError:
    with (
        pytest.raises(V2VError) as caught,
        serve_vddk(paths or PATHS, "vm-42", place, options, run),
    ):
        pass
    assert caught.value.id == id, caught.value
    assert caught.value.hint
    assert PASSWORD not in f"{caught.value} {caught.value.hint}"
    assert children() == set()
    return caught.value


def test_each_disk_is_served_read_only(run: Run, host: VddkHost, place: VspherePlace) -> None:
    with serve_vddk(PATHS, "vm-42", place, OPTIONS, run) as endpoints:
        assert [read_all(endpoint) for endpoint in endpoints] == CONTENTS
        for endpoint in endpoints:
            assert endpoint.read_only
            assert endpoint.request_size == 2 * MiB
            assert not endpoint.multi_conn
    assert {one["file"] for one in host.given()} == set(PATHS)
    assert children() == set()


def test_the_plugin_gets_what_the_user_gave(
    run: Run, host: VddkHost, place: VspherePlace, tmp_path: Path
) -> None:
    options = replace(
        OPTIONS,
        vddk_libdir=host.libdir,
        vddk_config=tmp_path / "conf",
        vddk_compression="fastlz",
        vddk_nfchostport=1902,
        vddk_transports="nbdssl:nbd",
    )
    with serve_vddk(PATHS[:1], "vm-42", place, options, run, snapshot="snapshot-7"):
        pass
    given = host.given()[0]
    assert given == {
        "server": "vcenter.invalid",
        "user": USER,
        "password": f"+{host.password_file}",
        "vm": "moref=vm-42",
        "thumbprint": THUMBPRINT,
        "file": PATHS[0],
        "libdir": str(host.libdir),
        "config": str(tmp_path / "conf"),
        "compression": "fastlz",
        "nfchostport": "1902",
        "snapshot": "snapshot-7",
        "transports": "nbdssl:nbd",
    }
    named = replace(options, vddk_snapshot="snapshot-9", vddk_port=902)
    with serve_vddk(PATHS[:1], "vm-42", replace(place, port=8443), named, run, snapshot="x"):
        pass
    assert (host.given()[-1]["snapshot"], host.given()[-1]["port"]) == ("snapshot-9", "902")


def test_no_request_is_larger_than_the_server_stands(
    run: Run, host: VddkHost, place: VspherePlace
) -> None:
    with serve_vddk(PATHS[:1], "vm-42", place, OPTIONS, run) as (endpoint,):
        handle = nbd_client.connect(endpoint)
        assert bytes(handle.pread(5 * MiB, 0)) == CONTENTS[0][: 5 * MiB]
        assert bytes(handle.pread(100, 77)) == CONTENTS[0][77:177]  # it reads whole sectors only
        handle.shutdown()
    assert host.largest() == 2 * MiB


def test_disks_by_paths_that_the_user_knows_better(
    run: Run, host: VddkHost, place: VspherePlace
) -> None:
    options = replace(OPTIONS, vddk_file=(PATHS[1],))
    with serve_vddk(["[old] x.vmdk"], "vm-42", place, options, run) as (endpoint,):
        assert read_all(endpoint) == CONTENTS[1]
    refused("vddk-files", run, place, options)


def test_the_password_is_in_a_file_only(run: Run, host: VddkHost, place: VspherePlace) -> None:
    refused("option-required", run, replace(place, password_file=None), OPTIONS)
    refused("vddk-cookie", run, place, replace(OPTIONS, vddk_cookie="+file"))
    assert host.given() == []


def test_a_wrong_password_is_tried_once(run: Run, host: VddkHost, place: VspherePlace) -> None:
    """vCenter locks an account after five failures."""
    host.password_file.write_text("wrong\n")
    error = refused("vsphere-auth", run, place, OPTIONS)
    assert USER in error.message
    assert len(host.given()) == 1


def test_what_vddk_cannot_open(run: Run, host: VddkHost, place: VspherePlace) -> None:
    locked = "[ds] locked/locked.vmdk"
    assert locked in refused("source-locked", run, place, OPTIONS, locked).message
    gone = "[ds] gone/gone.vmdk"
    assert gone in refused("source-missing", run, place, OPTIONS, gone).message
    other = replace(OPTIONS, vddk_thumbprint="CD" * 20)
    refused("vddk-thumbprint", run, place, other)
    refused("tls-thumbprint", run, place, replace(OPTIONS, vddk_thumbprint="CD"))


def test_a_host_without_the_library(
    run: Run, host: VddkHost, place: VspherePlace, tmp_path: Path
) -> None:
    nothing = replace(OPTIONS, vddk_libdir=tmp_path)
    assert isinstance(refused("vddk-library", run, place, nothing), HostError)
    (tmp_path / "lib64").mkdir()
    (tmp_path / "lib64" / "libvixDiskLib.so.6").touch()  # it is, but of another version
    refused("vddk-library", run, place, nothing)


def test_a_host_without_the_plugin(run: Run, host: VddkHost, place: VspherePlace) -> None:
    (host.folder / "nbdkit-vddk-plugin").unlink()
    assert "nbdkit-vddk-plugin" in str(refused("nbdkit-plugin-missing", run, place, OPTIONS).hint)


# Whom to trust ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory, need_openssl: None) -> Path:
    """A key and the certificate of it, in one file."""
    file = tmp_path_factory.mktemp("tls") / "pem"
    argv = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=vcenter -addext"
    names = "subjectAltName=IP:127.0.0.1"
    argv_out = ["-keyout", file, "-out", file.with_suffix(".crt")]
    subprocess.run([*argv.split(), names, *argv_out], check=True, capture_output=True)
    return file


@pytest.fixture(scope="module")
def need_openssl() -> None:
    import shutil

    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")


@pytest.fixture(scope="module")
def server(certificate: Path) -> Iterator[Any]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.with_suffix(".crt"), certificate)
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler
    ) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def thumbprint(certificate: Path, algorithm: str) -> str:
    der = ssl.PEM_cert_to_DER_cert(certificate.with_suffix(".crt").read_text())
    return hashlib.new(algorithm, der).hexdigest()


@pytest.fixture
def there(place: VspherePlace, server: Any) -> VspherePlace:
    return replace(place, server="127.0.0.1", port=server.server_address[1])


def given_thumbprint(place: VspherePlace, host: VddkHost, run: Run) -> str:
    """What VDDK is to verify the server by; it is not that of the host, which is not our server."""
    refused("vddk-thumbprint", run, place, VddkOptions())
    return host.given()[-1]["thumbprint"].replace(":", "").lower()


def test_a_server_that_is_not_known_is_not_trusted(
    run: Run, host: VddkHost, there: VspherePlace, certificate: Path
) -> None:
    error = refused("vddk-thumbprint", run, there, VddkOptions())
    assert host.given() == []  # the password was not sent
    shown = error.message.rpartition(" ")[2]
    assert shown.replace(":", "").lower() == thumbprint(certificate, "sha1")
    assert f"-io vddk-thumbprint={shown}" in str(error.hint)


def test_a_server_that_is_known_otherwise_is_told_to_vddk(
    run: Run, host: VddkHost, there: VspherePlace, certificate: Path
) -> None:
    sha1, sha256 = thumbprint(certificate, "sha1"), thumbprint(certificate, "sha256")
    by_ca = replace(there, cafile=certificate.with_suffix(".crt"))
    assert given_thumbprint(by_ca, host, run) == sha1
    assert given_thumbprint(replace(there, thumbprint=sha256), host, run) == sha1
    assert given_thumbprint(replace(there, thumbprint="ef" * 20), host, run) == "ef" * 20
    assert given_thumbprint(replace(there, verify=False), host, run) == sha1


def test_a_server_with_another_fingerprint_than_the_given_one(
    run: Run, host: VddkHost, there: VspherePlace
) -> None:
    refused("vddk-thumbprint", run, replace(there, thumbprint="ef" * 32), VddkOptions())
    assert host.given() == []


def test_a_server_that_does_not_answer(run: Run, host: VddkHost, place: VspherePlace) -> None:
    closed = replace(place, server="127.0.0.1", port=1)
    refused("vsphere-unreachable", run, closed, VddkOptions())


def test_a_cookie_is_refused_before_it_is_kept() -> None:
    from v2v import options

    with pytest.raises(UsageError) as caught:
        options.anchored(VddkOptions, {"-io vddk-cookie": "vmware_soap_session=1"})
    assert caught.value.id == "option-secret"
