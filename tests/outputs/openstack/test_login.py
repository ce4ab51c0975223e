"""Logging in, and what is told when that fails."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.fakes.http_server import serve_folder
from tests.openstack_cloud import Cloud
from v2v import options, process
from v2v.errors import UsageError, V2VError
from v2v.outputs._openstack.cloud import Cloud as Login
from v2v.outputs._openstack.options import CloudOptions
from v2v.outputs._openstack.volumes import CINDER, Volumes
from v2v.run import Run
from v2v.types import MiB


def log_in(words: dict[str, str], run: Run, services: dict[str, str] | None = None) -> Login:
    cloud = Login(options.parse(CloudOptions, words, module="-o glance"), purpose="-o glance")
    cloud.log_in(CINDER if services is None else services, run)
    return cloud


def refused(id: str, words: dict[str, str], run: Run) -> V2VError:
    with pytest.raises(V2VError) as caught:
        log_in(words, run)
    assert caught.value.id == id, caught.value
    assert caught.value.hint
    assert "secret word" not in str(caught.value)
    return caught.value


def without(words: dict[str, str], *flags: str) -> dict[str, str]:
    return {flag: word for flag, word in words.items() if flag not in flags}


def test_with_a_password_in_a_file(cloud: Cloud, run: Run) -> None:
    log_in(cloud.login, run)
    assert "POST /identity/v3/auth/tokens" in cloud.state.seen


def test_with_the_variables_of_openrc(cloud: Cloud, run: Run, monkeypatch) -> None:
    for name, word in {
        "AUTH_URL": f"{cloud.address}/identity/v3",
        "USERNAME": "user",
        "PASSWORD": "secret word",
        "USER_DOMAIN_NAME": "Default",
        "PROJECT_NAME": "demo",
        "PROJECT_DOMAIN_NAME": "Default",
        "CACERT": str(cloud.cafile),
    }.items():
        monkeypatch.setenv(f"OS_{name}", word)
    log_in({}, run)
    assert "secret word" not in process.environment().values()
    monkeypatch.setenv("V2V_OUTPUT_PASSWORD", "wrong")  # meant for us, so it counts
    for _ in range(2):  # of several jobs in a process, too
        refused("target-login", {}, run)


def test_with_a_cloud_of_clouds_yaml(cloud: Cloud, run: Run, tmp_path: Path) -> None:
    auth = {
        "auth_url": f"{cloud.address}/identity/v3",
        "username": "user",
        "password": "secret word",
        "user_domain_name": "Default",
        "project_name": "demo",
        "project_domain_name": "Default",
    }
    clouds = {"clouds": {"here": {"auth": auth, "cacert": str(cloud.cafile)}}}
    (tmp_path / "clouds.yaml").write_text(yaml.safe_dump(clouds))
    log_in({"-oo cloud": "here"}, run)
    error = refused("openstack-login", {"-oo cloud": "there"}, run)
    assert "there" in error.message


def test_with_an_application_credential(cloud: Cloud, run: Run, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("other secret\n")
    words = {
        "-oc": f"{cloud.address}/identity/v3",
        "-op": str(secret),
        "-oo cafile": str(cloud.cafile),
        "-oo os-application-credential-id": "credential-1",
    }
    log_in(words, run)
    secret.write_text("wrong\n")
    refused("target-login", words, run)


def test_an_address_without_a_version(cloud: Cloud, run: Run) -> None:
    log_in({**cloud.login, "-oc": f"{cloud.address}/identity"}, run)


def test_a_wrong_password(cloud: Cloud, run: Run) -> None:
    cloud.password.write_text("wrong\n")
    refused("target-login", cloud.login, run)


@pytest.mark.parametrize(
    "flag", ["-oo os-user-domain-name", "-oo os-project-domain-name", "-oo os-project-name"]
)
def test_a_domain_or_project_that_is_not_there(cloud: Cloud, run: Run, flag: str) -> None:
    refused("target-login", {**cloud.login, flag: "elsewhere"}, run)


def test_a_login_without_a_project_has_no_services(cloud: Cloud, run: Run) -> None:
    words = without(cloud.login, "-oo os-project-name", "-oo os-project-domain-name")
    assert "project" in (refused("target-service", words, run).hint or "")


def test_a_password_in_the_address_is_not_repeated(cloud: Cloud, run: Run) -> None:
    host = cloud.address.removeprefix("https://")
    refused("password-in-uri", {**cloud.login, "-oc": f"https://user:secret word@{host}/v3"}, run)


def test_answers_have_an_end(cloud: Cloud, run: Run, monkeypatch) -> None:
    monkeypatch.setattr("v2v.outputs._openstack.bounds.MAX_ANSWER", MiB)
    cloud.state.flood = "/auth/tokens"
    assert "more than" in refused("target-answer", cloud.login, run).message
    cloud.state.flood = None
    login = log_in(cloud.login, run)
    cloud.state.flood = "/volumes/detail"
    with pytest.raises(V2VError) as caught:
        Volumes(login, run).all()
    assert caught.value.id == "target-answer"


def test_nobody_tells_a_password(cloud: Cloud, run: Run) -> None:
    refused("openstack-login", without(cloud.login, "-op"), run)


def test_nobody_tells_where(cloud: Cloud, run: Run) -> None:
    error = refused("openstack-login", without(cloud.login, "-oc"), run)
    assert "Keystone's address" in error.message
    error = refused("openstack-login", {}, run)
    assert "Keystone's address" in error.message


@pytest.mark.parametrize(
    "address",
    ["cloud.example.com", "http://", "ftp://x/v3", "https://x:99999/v3", "https://[::1/v3"],
)
def test_an_address_that_is_none(cloud: Cloud, run: Run, address: str) -> None:
    refused("option-value", {**cloud.login, "-oc": address}, run)


def test_a_kind_of_login_that_nobody_knows(cloud: Cloud, run: Run) -> None:
    refused("openstack-login", {**cloud.login, "-oo os-auth-type": "v3nonsense"}, run)


def test_certificates_that_are_none(cloud: Cloud, run: Run, tmp_path: Path, monkeypatch) -> None:
    junk = tmp_path / "junk.pem"
    refused("tls-files", {**cloud.login, "-oo cafile": str(junk)}, run)
    junk.write_text("no certificate")
    refused("tls-files", {**cloud.login, "-oo cafile": str(junk)}, run)
    monkeypatch.setenv("OS_CACERT", str(junk))
    refused("tls-files", without(cloud.login, "-oo cafile"), run)


@pytest.mark.parametrize(
    "text", ["clouds: 7", "clouds: {x: 3}", "clouds: {x: {auth: 3}}", "clouds: [", "- a"]
)
def test_a_clouds_yaml_that_makes_no_sense(cloud: Cloud, run: Run, text: str) -> None:
    Path(os.environ["OS_CLIENT_CONFIG_FILE"]).write_text(text)
    refused("openstack-login", {"-oo cloud": "x"}, run)


def test_a_password_is_no_word_of_the_command_line(cloud: Cloud, run: Run) -> None:
    with pytest.raises(UsageError) as caught:
        log_in({**cloud.login, "-oo os-password": "secret word"}, run)
    assert caught.value.id == "option-secret"
    assert "-op FILE" in (caught.value.hint or "")


@pytest.mark.parametrize("path", ["/identity/v3", "/identity"])
def test_an_untrusted_certificate(cloud: Cloud, run: Run, path: str) -> None:
    words = {**without(cloud.login, "-oo cafile"), "-oc": cloud.address + path}
    error = refused("target-untrusted", words, run)
    assert "cafile" in (error.hint or "")
    assert not any(line.startswith("POST") for line in cloud.state.seen)
    log_in({**words, "-oo verify-server-certificate": "false"}, run)


def test_a_service_that_is_not_there(cloud: Cloud, run: Run) -> None:
    cloud.state.services.remove("volumev3")
    assert "Cinder" in refused("target-service", cloud.login, run).message


def test_nothing_answers(cloud: Cloud, run: Run) -> None:
    refused("target-unreachable", {**cloud.login, "-oc": "https://127.0.0.1:1/v3"}, run)


def test_something_else_answers(run: Run, cloud: Cloud, tmp_path: Path) -> None:
    with serve_folder(tmp_path) as address:
        refused("target-answer", {**cloud.login, "-oc": address}, run)


def test_a_keystone_that_is_broken(cloud: Cloud, run: Run) -> None:
    cloud.state.fail("POST", "/auth/tokens", 500)
    refused("target-refused", cloud.login, run)


def test_a_token_that_expires_is_renewed(cloud: Cloud, run: Run) -> None:
    login = log_in(cloud.login, run)
    cloud.state.tokens.clear()
    assert Volumes(login, run).all() == []


def test_no_word_about_it_on_the_terminal(cloud: Cloud) -> None:
    """Libraries log to stderr where nobody told them otherwise."""
    code = (
        "import tempfile, pathlib\n"
        "from tests.outputs.openstack.test_login import *\n"
        "with Run.create(pathlib.Path(tempfile.mkdtemp()), 'x') as run:\n"
        "    refused('target-unreachable', {'-oc': 'https://127.0.0.1:1', '-op': sys.argv[1],"
        " '-oo os-username': 'user'}, run)\n"
    )
    env = {**os.environ, "TMPDIR": str(cloud.state.folder)}
    argv = [sys.executable, "-c", code, str(cloud.password)]
    root = Path(__file__).parents[3]
    done = subprocess.run(argv, env=env, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


def test_the_fake_speaks_tls(cloud: Cloud) -> None:
    port = int(cloud.address.rpartition(":")[2])
    assert "BEGIN CERTIFICATE" in ssl.get_server_certificate(("127.0.0.1", port))
