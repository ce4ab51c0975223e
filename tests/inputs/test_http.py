"""-i http: which guests it takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.input_suite import read_all
from tests.fakes.disks import disk_content
from tests.fakes.http_server import serve_folder
from v2v import registry
from v2v.errors import SourceError, UsageError
from v2v.inputs._plain import ImageOptions
from v2v.inputs.http import HttpInput
from v2v.run import Run


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
