"""Disks through any plugin of nbdkit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.contract.input_suite import children, read_all
from tests.fakes.disks import disk_content
from v2v import nbd_client
from v2v.errors import V2VError
from v2v.inputs._plugins import check_parameters, plugin_name, serve_plugin
from v2v.run import Run
from v2v.types import MiB

CONTENT = disk_content()


@pytest.fixture(autouse=True)
def tools(need_tool) -> None:
    need_tool("nbdkit")


def served(
    name: str, given: Mapping[str, str], run: Run, *disks: Mapping[str, str]
) -> list[tuple[int, bytes]]:
    with serve_plugin(name, tuple(given.items()), disks or ({},), run) as endpoints:
        return [(endpoint.size, read_all(endpoint)) for endpoint in endpoints]


def refused(id: str, name: str, given: Mapping[str, str], run: Run, **known: str) -> V2VError:
    with pytest.raises(V2VError) as caught:
        served(name, given, run, known)
    assert caught.value.id == id, caught.value
    assert caught.value.hint
    assert children() == set()
    return caught.value


def test_each_disk_is_served_by_what_its_words_stand_for(run: Run, tmp_path: Path) -> None:
    other = disk_content(seed=1)
    (tmp_path / "web [1] {x}.img").write_bytes(CONTENT)
    (tmp_path / "1.img").write_bytes(other)
    disks = ({"path": "web [1] {x}"}, {"path": "1"})
    found = served("file", {"file": f"{tmp_path}/{{path}}.img"}, run, *disks)
    assert found == [(len(CONTENT), CONTENT), (len(other), other)]


def test_disks_are_counted(run: Run) -> None:
    found = served("memory", {"size": "{disk}M"}, run, {}, {}, {})
    assert [size for size, _ in found] == [0, MiB, 2 * MiB]


def test_the_disk_is_read_only_and_many_may_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(CONTENT)
    with serve_plugin("file", (("file", str(tmp_path / "a")),), [{}], run) as (endpoint,):
        assert endpoint.read_only and endpoint.multi_conn
        handles = [nbd_client.connect(endpoint) for _ in range(3)]
        assert all(handle.is_read_only() for handle in handles)
        for handle in handles:
            handle.shutdown()


def test_braces_that_are_meant(run: Run, tmp_path: Path) -> None:
    (tmp_path / "{a}").write_bytes(CONTENT)
    assert served("file", {"file": f"{tmp_path}/{{{{a}}}}"}, run) == [(len(CONTENT), CONTENT)]


def test_a_key_that_the_input_has_as_well(run: Run) -> None:
    assert served("memory", {"nbdkit-size": "1M"}, run) == [(MiB, bytes(MiB))]


def test_a_plugin_by_its_file(run: Run) -> None:
    from v2v.nbdkit import _config

    path = Path(_config()["plugindir"]) / "nbdkit-memory-plugin.so"
    assert served(str(path), {"size": "1M"}, run) == [(MiB, bytes(MiB))]
    assert plugin_name(f"nbdkit:{path}") == str(path)
    refused("plugin-name", "/none.so", {}, run)


def test_a_plugin_that_is_not_installed(run: Run) -> None:
    assert "nbdkit-plugin-nfc" in str(refused("nbdkit-plugin-missing", "nfc", {}, run).hint)


@pytest.mark.parametrize("word", ["", "-v", "../x", "a b", "a;b", "a.so"])
def test_names_of_no_plugin(word: str) -> None:
    with pytest.raises(V2VError) as caught:
        plugin_name(f"nbdkit:{word}")
    assert caught.value.id == "plugin-name"


def test_names_of_plugins() -> None:
    assert [plugin_name(f"nbdkit:{name}") for name in ("nfc", "S3", "sparse-random")] == [
        "nfc",
        "S3",
        "sparse-random",
    ]


@pytest.mark.parametrize("word", ["{moref}", "{", "a}", "{}", "{pa th}"])
def test_words_that_stand_for_nothing(run: Run, word: str) -> None:
    error = refused("plugin-parameter", "memory", {"size": word}, run, path="x")
    assert "{path}" in str(error.hint)


@pytest.mark.parametrize("key", ["", "-f", "--run", "1a", "a b", "nbdkit-"])
def test_keys_that_no_parameter_has(run: Run, key: str) -> None:
    refused("plugin-parameter", "memory", {key: "x"}, run)


@pytest.mark.parametrize("name", ["eval", "/usr/lib/nbdkit/plugins/nbdkit-eval-plugin.so", "cc"])
def test_no_word_of_a_vm_becomes_a_part_of_a_program(name: str) -> None:
    with pytest.raises(V2VError) as caught:
        check_parameters(name, (("get_size", "echo {vm}"),), ["vm"])
    assert caught.value.id == "plugin-parameter"
    check_parameters(name, (("get_size", "echo 512"),), ["vm"])


def test_what_the_plugin_says_is_told(run: Run, tmp_path: Path) -> None:
    error = refused("source-serve", "file", {"file": str(tmp_path / "none")}, run)
    assert "No such file" in error.message
    error = refused("source-serve", "memory", {"sizes": "1M"}, run)
    assert "sizes" in error.message


def test_a_secret_in_a_file_reaches_the_plugin_unseen(run: Run, tmp_path: Path) -> None:
    """The sh plugin shows what it gets: the name of the file."""
    secret, script, seen = tmp_path / "pw", tmp_path / "plugin.sh", tmp_path / "seen"
    secret.write_text("hunter2\n")
    script.write_text(
        f'#!/bin/sh\ncase $1 in config) echo "$2 $3" >> {seen};; get_size) echo 512;;\n'
        "pread) head -c $3 /dev/zero;; *) exit 2;; esac\n"
    )
    script.chmod(0o755)
    given = {"script": str(script), "password": f"+{secret}"}
    assert served("sh", given, run) == [(512, bytes(512))]
    assert seen.read_text() == f"password +{secret}\n"
