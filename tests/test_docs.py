"""The documentation names what there is."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import v2v
from v2v import events
from v2v.cli.main import build_parser, parse

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "HACKING.md", ROOT / "CHANGELOG.md"]


def spellings() -> list[tuple[str, str]]:
    return [
        (command, option.spelling)
        for command, parser in build_parser()[1].items()
        for option in parser.options()
        if option.spelling not in ("-h", "--help")
    ]


@pytest.mark.parametrize(("command", "spelling"), spellings())
def test_every_option_is_in_the_reference(command: str, spelling: str) -> None:
    page = (DOCS / "cli.md").read_text()
    assert re.search(rf"`{re.escape(spelling)}[`\[= ]", page), f"{command} {spelling}"


def test_the_reference_names_no_option_that_is_not_there() -> None:
    page = (DOCS / "cli.md").read_text()
    known = {spelling for _, spelling in spellings()} | {"--", "--help"}
    first_cells = re.findall(r"^\| (`-[^|]*) \|", page, re.MULTILINE)
    named = {word for cell in first_cells for word in re.findall(r"`(-[-a-z]*)", cell, re.I)}
    assert named and named <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_examples_are_understood(page: Path) -> None:
    if page.name == "cli.md":
        return  # its first block is a synopsis
    commands = "|".join(build_parser()[1])
    for line in re.findall(rf"^(?: {{4}}|\$ )?v2v ((?:{commands}) .+)", page.read_text(), re.M):
        parse(shlex.split(line.partition(" #")[0]))


@pytest.mark.parametrize("kind", events.Event.__subclasses__())
def test_every_event_and_field_is_documented(kind: type[events.Event]) -> None:
    _, _, rest = (DOCS / "events.md").read_text().partition(f"| `{kind.event}` |")
    assert rest, kind.event
    rows = re.split(r"^\| `", rest, maxsplit=1, flags=re.MULTILINE)[0]
    for field in fields(kind):
        if field.name not in ("job", "at"):
            assert f"`{field.name}`" in rows, field.name


def test_examples_of_the_library_use_what_there_is() -> None:
    page = (DOCS / "library.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert blocks
    for block in blocks:
        compile(block, "library.md", "exec")
        for name in re.findall(r"\bv2v\.([A-Za-z_]+)\b(?! import)", block):
            assert hasattr(v2v, name) or name == "events", name


def test_examples_of_the_library_run(tmp_path: Path, need_tool) -> None:
    """As they are, but for their paths, on a disk that is only copied."""
    need_tool("nbdkit")
    for folder in ("srv/export", "srv/new", "var/lib/libvirt/images"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("web.vmdk", "data.vmdk"):
        (tmp_path / "srv/export" / name).write_bytes(bytes(1 << 20))
    page = (DOCS / "library.md").read_text().replace('"/srv', f'"{tmp_path}/srv')
    page = page.replace('"/var', f'"{tmp_path}/var')
    page = page.replace('web.vmdk"', 'web.vmdk", conversion=v2v.ConversionOptions(convert=False)')
    page = page.replace("    boot_check=300,\n", "").replace("result.boot.reached", "result.boot")
    env = {**os.environ, "V2V_JOBS": str(tmp_path / "jobs")}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        argv = [sys.executable, "-c", block]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert done.stdout and not done.stderr
    assert (tmp_path / "var/lib/libvirt/images/web-sda").exists()
    assert (tmp_path / "srv/new/web-sda").exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target
