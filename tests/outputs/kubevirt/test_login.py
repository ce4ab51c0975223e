"""-o kubevirt into a cluster: kubeconfigs, and the client library."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import kubernetes as kubernetes_library
import pytest
import yaml

from tests.contract.output_suite import GUEST
from tests.contract.test_outputs import make
from tests.kubernetes import Fake, words, write_kubeconfig
from tests.outputs.kubevirt.job import SIZES, check_image, filled, refused, source
from v2v import password
from v2v.errors import UsageError
from v2v.output import Output


def test_an_old_client_library_is_told(output, run, monkeypatch) -> None:
    """Its answers are read whole before they could be bounded."""
    monkeypatch.setattr(kubernetes_library, "__version__", "36.0.3")
    error = refused(output, run)
    assert error.id == "binding-missing" and "36.0.3" in error.message


@pytest.fixture
def kubeconfig(fake: Fake, tmp_path: Path) -> Path:
    return write_kubeconfig(fake, tmp_path / "config")


def by_kubeconfig(fake: Fake, staging: Path, file: Path, **more: str) -> Output:
    given = words(fake, staging, kubeconfig=str(file), **more) | {"-of": "raw"}
    for flag in ("-oc", "-op", "-oo cafile"):
        del given[flag]
    return make("kubevirt", given)


def test_a_kubeconfig_tells_where_and_who(
    fake, staging, kubeconfig, run, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    made = by_kubeconfig(fake, staging, kubeconfig)
    disks, content = filled(made, source(), run)
    ref = made.finalize(source(), GUEST, disks, run)
    check_image(fake, content, "vms")
    assert ref.metadata == "vms/web"
    assert list((tmp_path / "tmp").iterdir()) == [], "a killed job would leave keys there"


def test_the_namespace_of_the_command_line_wins(fake, staging, kubeconfig, run) -> None:
    by_kubeconfig(fake, staging, kubeconfig, namespace="default").create_disks(source(), SIZES, run)
    assert fake.names("datavolumes", "default") == ["web-sda"]


def test_a_job_does_not_go_on_somewhere_else(fake, staging, kubeconfig, run) -> None:
    disks = by_kubeconfig(fake, staging, kubeconfig).create_disks(source(), SIZES, run)
    write_kubeconfig(fake, kubeconfig, namespace="default")
    with pytest.raises(UsageError) as error:
        by_kubeconfig(fake, staging, kubeconfig).discard(disks, run)
    assert error.value.id == "kubevirt-elsewhere"
    assert fake.names("datavolumes", "vms") == ["web-sda"]


@pytest.mark.parametrize(
    "content",
    [
        None,
        "[]",
        "a: [",
        "contexts: 5",
        "contexts: []",
        "{current-context: a, contexts: [{name: a, context: {cluster: c, user: u}}], "
        "clusters: [{name: c, cluster: {server: 'https://x', certificate-authority-data: '%'}}], "
        "users: []}",
        "{current-context: a, contexts: [{name: a, context: {cluster: c, user: u}}], "
        "clusters: [], users: []}",
    ],
)
def test_files_that_are_no_kubeconfig(fake, staging, tmp_path, run, content) -> None:
    file = tmp_path / "config"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UsageError) as error:
        by_kubeconfig(fake, staging, file).check_source(source(), run)
    assert error.value.id == "kubevirt-kubeconfig"


EXEC = {"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never"}


@pytest.mark.parametrize(
    "user",
    [
        {"exec": {**EXEC, "command": "/no/such"}},
        {"exec": {**EXEC, "command": "sh", "args": ["-c", "echo hush >&2; exit 3"]}},
        {"exec": {**EXEC, "command": "echo", "args": ["[]"]}},
        {"auth-provider": {"name": "azure", "config": {"access-token": "hush"}}},
        {"auth-provider": {"name": "gcp", "config": {"cmd-path": "/no/such", "cmd-args": "x"}}},
        {
            "auth-provider": {
                "name": "oidc",
                "config": {
                    "id-token": "e30.eyJleHAiOiAxfQ.hush",
                    "client-id": "a",
                    "client-secret": "hush",
                    "refresh-token": "hush",
                    "idp-issuer-url": "https://127.0.0.1:1",
                },
            }
        },
        {"tokenFile": "missing"},
    ],
)
def test_a_kubeconfig_whose_user_gets_no_credentials(
    fake, staging, kubeconfig, run, user, capfd
) -> None:
    """The library would ask as nobody, and print what a program says."""
    content = yaml.safe_load(kubeconfig.read_text())
    content["users"][0]["user"] = user
    kubeconfig.write_text(yaml.safe_dump(content))
    error = refused(by_kubeconfig(fake, staging, kubeconfig), run)
    assert error.id == "kubevirt-kubeconfig" and fake.requests == []
    printed = capfd.readouterr()
    assert "hush" not in str(error) + printed.out + printed.err


def test_a_context_that_is_not_there(fake, staging, kubeconfig, run) -> None:
    with pytest.raises(UsageError, match="no context other") as error:
        by_kubeconfig(fake, staging, kubeconfig, context="other").check_source(source(), run)
    assert "here" in (error.value.hint or "")


def test_a_program_that_gives_the_token_gets_no_passwords(
    fake, staging, kubeconfig, run, tmp_path, monkeypatch
) -> None:
    """As cloud providers have it: the client library starts it."""
    monkeypatch.setattr(password, "_answers", {})
    monkeypatch.setenv("V2V_PASSWORD", "esxi-secret")
    seen = tmp_path / "environment"
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": fake.token},
    }
    script = f"import os, json; open({str(seen)!r}, 'w').write(repr(dict(os.environ)))"
    script += f"; print(json.dumps({credential!r}))"
    content = yaml.safe_load(kubeconfig.read_text())
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": ["-c", script],
        "interactiveMode": "Never",
    }
    content["users"][0]["user"] = {"exec": plugin}
    kubeconfig.write_text(yaml.safe_dump(content))
    by_kubeconfig(fake, staging, kubeconfig).check_source(source(), run)
    assert "PATH" in seen.read_text() and "esxi-secret" not in seen.read_text()
