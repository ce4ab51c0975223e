"""docs/errors.md lists every error and finding that v2v can tell, and nothing else."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from v2v import errors
from v2v.process import ToolError

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "errors.md"
ROW = re.compile(r"^\| `([a-z0-9-]+)` \| ([0-9, ]*) ?\|", re.MULTILINE)

CODES = {
    cls.__name__: cls.exit_code
    for cls in (*vars(errors).values(), ToolError)
    if isinstance(cls, type) and issubclass(cls, errors.V2VError)
}
ALWAYS = {"cancelled": {130}, "unexpected": {1}}  # made where no literal says so


def calls() -> Iterator[ast.Call]:
    for path in sorted([*ROOT.glob("v2v/**/*.py"), *ROOT.glob("conversion/**/*.py")]):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield node


def name_of(call: ast.Call) -> str:
    return ast.unparse(call.func).rpartition(".")[2]


def literals(node: ast.expr | None) -> list[str]:
    """The string of a literal, or both of `"a" if condition else "b"`."""
    if isinstance(node, ast.IfExp):
        return literals(node.body) + literals(node.orelse)
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def keyword(call: ast.Call, name: str) -> list[str]:
    return literals(next((k.value for k in call.keywords if k.arg == name), None))


def error_ids() -> dict[str, set[int]]:
    """Each error id and the exit codes it comes with."""
    found: dict[str, set[int]] = defaultdict(set, {k: set(v) for k, v in ALWAYS.items()})
    for call in calls():
        if name_of(call) in CODES:
            for id in keyword(call, "id"):
                found[id].add(CODES[name_of(call)])
        elif any(
            isinstance(k.value, ast.Constant) and k.value.value is True
            for k in call.keywords
            if k.arg == "fatal"
        ):
            for id in keyword(call, "failure_id"):
                found[id].add(errors.GuestError.exit_code)
    return dict(found)


def finding_ids() -> set[str]:
    """Ids of warnings and findings, which end no job."""
    found: set[str] = set()
    for call in calls():
        if name_of(call) in ("warn", "Warned"):
            found.update(keyword(call, "id"))
        elif name_of(call) == "Finding":
            found.update(literals(call.args[1]) if len(call.args) > 1 else keyword(call, "id"))
        found.update(keyword(call, "failure_id"))
    return found


@pytest.fixture(scope="module")
def tables() -> tuple[str, str]:
    """The page's part on errors, and its part on findings."""
    before, _, after = PAGE.read_text().partition("\n## Warnings and findings\n")
    assert after
    return before, after


def test_every_error_is_documented_with_its_exit_code(tables: tuple[str, str]) -> None:
    listed = {id: {int(c) for c in codes.split(",")} for id, codes in ROW.findall(tables[0])}
    assert listed == error_ids()


def test_every_finding_is_documented(tables: tuple[str, str]) -> None:
    listed = re.findall(r"^\| `([a-z0-9-]+)` \|", tables[1], re.MULTILINE)
    assert sorted(listed) == sorted(finding_ids())


def test_ids_are_kebab_case() -> None:
    for id in (*error_ids(), *finding_ids()):
        assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", id), id
