"""Parts of a file behind a web server: another part, or less of it, is never taken for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.disks import disk_content
from tests.fakes.http_server import serve_folder
from v2v.cancel import Cancel
from v2v.errors import Cancelled, SourceError
from v2v.image.magic import HEAD
from v2v.inputs._serve.http import HttpReader


def test_a_part_that_is_cut_is_no_end_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "web.img").write_bytes(disk_content())
    with serve_folder(tmp_path, cut=HEAD) as server:
        reader = HttpReader(f"{server}/web.img")
        with pytest.raises(SourceError, match="the connection was closed"):
            reader.read(HEAD, 2 * HEAD)


def test_another_part_than_was_asked_for_is_refused(tmp_path: Path) -> None:
    (tmp_path / "web.img").write_bytes(disk_content())
    with serve_folder(tmp_path, shift=512) as server:
        reader = HttpReader(f"{server}/web.img")
        with pytest.raises(SourceError, match="was asked for"):
            reader.read(HEAD, 512)


def test_a_file_that_grows_while_it_is_looked_at_is_refused(tmp_path: Path) -> None:
    (tmp_path / "web.img").write_bytes(disk_content())
    with serve_folder(tmp_path) as server:
        reader = HttpReader(f"{server}/web.img")
        (tmp_path / "web.img").write_bytes(disk_content() + b"more")
        with pytest.raises(SourceError, match="now has"):
            reader.read(HEAD, 512)


def test_a_cancelled_job_reads_no_further(tmp_path: Path) -> None:
    (tmp_path / "web.img").write_bytes(disk_content())
    cancel = Cancel()
    with serve_folder(tmp_path) as server:
        reader = HttpReader(f"{server}/web.img", cancel=cancel)
        cancel.cancel()
        with pytest.raises(Cancelled):
            reader.read(HEAD, 512)
