"""-i http: which guests it takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.disks import disk_content
from tests.fakes.http_server import serve_folder
from v2v import registry
from v2v.errors import UsageError
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
