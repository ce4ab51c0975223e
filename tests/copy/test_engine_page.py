"""docs/copy-engine.md states the numbers that the code has."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from v2v.job import CopyOptions
from v2v.types import GiB, KiB, MiB

PAGE = Path(__file__).parents[2] / "docs" / "copy-engine.md"
UNITS = {"": 1, "s": 1, "KiB": KiB, "MiB": MiB, "GiB": GiB}
ROWS = re.findall(r"^\| [^|]+ \| ([\d., and]+) ?(\w*) \| `([\w.-]+)` \|$", PAGE.read_text(), re.M)


def test_every_row_of_the_table_is_looked_at() -> None:
    _, _, table = PAGE.read_text().partition("## Numbers")
    assert len(ROWS) == table.count("\n| ") - 1 > 0  # but for its head


@pytest.mark.parametrize(("value", "unit", "name"), ROWS, ids=lambda word: word)
def test_the_page_has_the_number_of_the_code(value: str, unit: str, name: str) -> None:
    stated = tuple(float(number) * UNITS[unit] for number in re.findall(r"[\d.]+", value))
    assert stated == in_code(name)


def in_code(name: str) -> tuple[float, ...]:
    if name == "--stall-timeout":
        return (CopyOptions().stall_timeout,)
    module, constant = name.split(".")
    found = getattr(import_module(f"v2v.copy.{module}"), constant)
    return found if isinstance(found, tuple) else (found,)
