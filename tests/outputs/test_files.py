"""Names of files, and what becomes of strange ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from v2v.outputs import _files
from v2v.run import Run


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("demo", "demo"),
        ("Web server (old)", "Web server (old)"),
        ("a/b", "a_b"),
        ("../../etc/passwd", "___.._etc_passwd"),
        ("..", "__"),
        ("-rf", "_rf"),
        (".hidden", "_hidden"),
        ("a\nb\x1b[31mc\0", "a_b_[31mc_"),
        ("\u202egpj.exe", "_gpj.exe"),
        ("caf\udce9", "caf_"),
        ("Büro", "Büro"),
        ("", "vm"),
    ],
)
def test_safe_name(name: str, expected: str) -> None:
    assert _files.safe_name(name) == expected


@settings(deadline=None)
@given(st.text(st.characters(), max_size=300))
def test_any_name_gives_a_file_in_the_folder(name: str) -> None:
    safe = _files.safe_name(name)
    assert safe
    assert safe[0] not in ".-"
    assert safe.isprintable()
    longest = Path(f"/folder/{safe}-sdaa")
    assert longest.parent == Path("/folder")
    job_id = "20261121-020202-" + "x" * 40 + "-abcd"
    assert len(_files.working_path(longest, job_id).name.encode()) <= 255


@pytest.mark.parametrize(
    ("index", "suffix"),
    [(0, "sda"), (25, "sdz"), (26, "sdaa"), (27, "sdab"), (701, "sdzz"), (702, "sdaaa")],
)
def test_disk_suffix(index: int, suffix: str) -> None:
    assert _files.disk_suffix(index) == suffix


@pytest.mark.parametrize("name", ["名" * 300, "\U0001f600" * 90, "x" * 300])
def test_a_long_name_fits_with_its_own_job_id(tmp_path: Path, name: str) -> None:
    with Run.create(tmp_path, name) as run:
        final = tmp_path / f"{_files.safe_name(name)}-sda"
        _files.create_blank(_files.working_path(final, run.job_id), 1, preallocated=False)
        assert _files.leftovers(tmp_path, run.job_id) == [_files.working_path(final, run.job_id)]


def test_disks_are_not_for_everybody(tmp_path: Path) -> None:
    _files.create_blank(tmp_path / "disk", 512, preallocated=True)
    assert (tmp_path / "disk").stat().st_mode & 0o777 == 0o600
