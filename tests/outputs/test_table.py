"""The page that compares the outputs says what the outputs say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from v2v import options, registry
from v2v.types import MiB

PAGE = Path(__file__).parents[2] / "docs" / "outputs.md"
ABILITIES = ("request", "format", "start", "force", "boot", "verify")
MAPS = ("networks", "storage")
MODES = sorted(registry.outputs())


def rows(title: str, columns: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """The cells of the section's table, by mode and column."""
    _, _, part = PAGE.read_text().partition(f"## {title}\n")
    section, _, _ = part.partition("\n## ")
    lines = re.findall(r"^\| `([a-z][a-z-]*)` \| (.+) \|$", section, re.MULTILINE)
    return {mode: dict(zip(columns, cells.split(" | "), strict=True)) for mode, cells in lines}


def abilities() -> dict[str, dict[str, str]]:
    return rows("What each can do", ABILITIES)


def places() -> dict[str, dict[str, str]]:
    return rows("Networks and storages", MAPS)


def test_every_output_is_in_all_tables() -> None:
    assert sorted(abilities()) == sorted(places()) == MODES
    linked = re.findall(r"^\| \[`([a-z][a-z-]*)`\]", PAGE.read_text(), re.MULTILINE)
    assert sorted(linked) == MODES


@pytest.mark.parametrize("mode", MODES)
def test_the_row_is_what_the_output_says(mode: str) -> None:
    cls, row = registry.find_output(mode), abilities()[mode] | places()[mode]
    flags = {one.flag for one in options.describe(cls.Options)}
    if cls.request_size is not None:
        assert row["request"] == f"{cls.request_size // MiB} MiB"
    else:
        assert "MiB" not in row["request"]
    said = {
        "networks": bool(cls.nic_maps),
        "storage": cls.per_disk_storage,
        "start": "--start" in flags,
        "force": "--force" in flags,
        "boot": cls.bootable,
        "verify": cls.can_verify,
    }
    for column, value in said.items():
        assert row[column].startswith("no") == (not value), column
    assert ("qcow2" in row["format"]) == ("-of" in flags)
    assert ("alone" in row["networks"]) == (cls.nic_maps == ("mac",))
