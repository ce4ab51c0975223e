"""The page that compares the outputs says what the outputs say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from v2v import options, registry
from v2v.types import MiB

PAGE = Path(__file__).parents[2] / "docs" / "outputs.md"
COLUMNS = ("request", "format", "storage", "start", "force", "boot", "verify")
MODES = sorted(registry.outputs())


def rows() -> dict[str, dict[str, str]]:
    _, _, part = PAGE.read_text().partition("## What each can do\n")
    lines = re.findall(r"^\| `([a-z][a-z-]*)` \| (.+) \|$", part, re.MULTILINE)
    return {mode: dict(zip(COLUMNS, cells.split(" | "), strict=True)) for mode, cells in lines}


def test_every_output_is_in_both_tables() -> None:
    assert sorted(rows()) == MODES
    named = re.findall(r"^\| \[?`([a-z][a-z-]*)`", PAGE.read_text(), re.MULTILINE)
    assert sorted(named) == sorted([*MODES, *MODES])


@pytest.mark.parametrize("mode", MODES)
def test_the_row_is_what_the_output_says(mode: str) -> None:
    cls, row = registry.find_output(mode), rows()[mode]
    flags = {one.flag for one in options.describe(cls.Options)}
    if cls.request_size is not None:
        assert row["request"] == f"{cls.request_size // MiB} MiB"
    else:
        assert "MiB" not in row["request"]
    said = {
        "storage": cls.per_disk_storage,
        "start": "--start" in flags,
        "force": "--force" in flags,
        "boot": cls.bootable,
        "verify": cls.can_verify,
    }
    for column, value in said.items():
        assert row[column].startswith("no") == (not value), column
    assert ("qcow2" in row["format"]) == ("-of" in flags)
