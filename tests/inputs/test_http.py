"""-i http: which guests it takes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import v2v.inputs._serve
from tests.contract.input_suite import read_all
from tests.fakes.disks import disk_content
from tests.fakes.http_server import serve_folder
from v2v import registry
from v2v.errors import SourceError, UsageError
from v2v.image import Image, read_remote
from v2v.inputs._plain import ImageOptions
from v2v.inputs.http import HttpInput
from v2v.run import Run
from v2v.types import MiB


@pytest.mark.parametrize(
    "word", ["/srv/disk.img", "disk.img", "http:/host/x", "https://", "nbd://host/", "ftp://h/x"]
)
def test_what_is_no_web_address(run: Run, word: str) -> None:
    with pytest.raises(UsageError) as caught:
        HttpInput(ImageOptions(), [word]).read_source(run)
    assert caught.value.id == "uri-scheme"
    assert word in str(caught.value)


def test_any_spelling_of_the_scheme(run: Run, tmp_path: Path) -> None:
    (tmp_path / "web.img").write_bytes(disk_content())
    with serve_folder(tmp_path) as address:
        url = f"{address}/web.img".replace("http", "HTTP", 1)
        source = HttpInput(ImageOptions(), [url]).read_source(run)
    assert (source.name, source.input) == ("web", "http")


def test_https_is_the_same_mode() -> None:
    assert registry.find_input("https") is HttpInput


def test_the_password_goes_to_no_other_server(run: Run, tmp_path: Path) -> None:
    (tmp_path / "web.img").write_bytes(disk_content())
    (tmp_path / "password").write_text("secret\n")
    given = ImageOptions(password_file=tmp_path / "password")
    login = ("joe", "secret")  # both servers want it: who does not get it answers with 401
    with (
        serve_folder(tmp_path, login=login) as other,
        serve_folder(tmp_path, login=login, moved=other) as server,
    ):
        url = f"{server}/moved/web.img".replace("://", "://joe@")
        with pytest.raises(SourceError, match="401"):
            HttpInput(given, [url]).read_source(run)


def test_the_password_goes_to_another_place_of_the_server(run: Run, tmp_path: Path) -> None:
    (tmp_path / "web.img").write_bytes(disk_content())
    (tmp_path / "password").write_text("secret\n")
    given = ImageOptions(password_file=tmp_path / "password")
    with serve_folder(tmp_path, login=("joe", "secret")) as server:
        url = f"{server}/moved/web.img".replace("://", "://joe@")
        http = HttpInput(given, [url])
        with http.serve(http.read_source(run), run) as (endpoint,):
            assert read_all(endpoint) == disk_content()


def test_headers_that_change_once_they_were_checked_name_no_file_of_this_host(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, need_tool
) -> None:
    need_tool("qemu-img")
    (tmp_path / "secret").write_bytes(b"secret" * MiB)
    image, other = tmp_path / "web.qcow2", tmp_path / "other.qcow2"
    create = ["qemu-img", "create", "-q", "-f", "qcow2"]
    subprocess.run([*create, image, "6M"], check=True)
    subprocess.run([*create, "-F", "raw", "-b", tmp_path / "secret", other], check=True)
    size = max(image.stat().st_size, other.stat().st_size)
    for one in (image, other):
        os.truncate(one, size)

    def checked_and_changed(*words: object, **given: object) -> Image:
        found = read_remote(*words, **given)  # type: ignore[arg-type]
        image.write_bytes(other.read_bytes())
        return found

    monkeypatch.setattr(v2v.inputs._serve, "read_remote", checked_and_changed)
    with serve_folder(tmp_path) as server:
        http = HttpInput(ImageOptions(), [f"{server}/web.qcow2"])
        with http.serve(http.read_source(run), run) as (endpoint,):
            assert read_all(endpoint) == bytes(6 * MiB)
    assert image.read_bytes() == other.read_bytes()
