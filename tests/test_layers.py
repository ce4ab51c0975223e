"""Lower layers never import upper ones, and `import v2v` is cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Lowest row first; a module imports from its own row and from lower ones. See HACKING.md.
ROWS = {
    "values": (
        "v2v.types",
        "v2v.address",
        "v2v.endpoint",
        "v2v.extents",
        "v2v.events",
        "v2v.errors",
        "v2v.cancel",
        "v2v.texts",
    ),
    "machinery": (
        "v2v.job",
        "v2v.options",
        "v2v.process",
        "v2v.file_locks",
        "v2v.journal",
        "v2v.logs",
        "v2v.run",
        "v2v.hardware",
        "v2v.network",
        "v2v.optional",
        "v2v.password",
        "v2v.patience",
        "v2v.storage",
        "v2v.source_changes",
    ),
    "toolbox": (
        "v2v.accel",
        "v2v.disk_files",
        "v2v.disk_sinks",
        "v2v.libvirt_connection",
        "v2v.nbdfuse",
        "v2v.nbdkit",
        "v2v.nbd_client",
        "v2v.nbd_layers",
        "v2v.qemu",
        "v2v.uefi",
        "v2v.qemu_img",
        "v2v.qemu_nbd",
        "v2v.overlay",
        "v2v.image",
        "v2v.image.*",
        "v2v.vmdk",
        "v2v.vmdk.*",
        "v2v.copy",
        "v2v.copy.*",
        "v2v.boot_check",
        "v2v.boot_check.*",
        "v2v.targets",
        "v2v.targets.*",
    ),
    "contracts": ("v2v.input", "v2v.output", "v2v.converter"),
    "siblings": (
        "v2v.coordinator",
        "v2v.coordinator.*",
        "v2v.inputs",
        "v2v.inputs.*",
        "v2v.outputs",
        "v2v.outputs.*",
        "conversion",
        "conversion.*",
    ),
    "wiring": (
        "v2v.registry",
        "v2v.source_facts",
        "v2v.report",
        "v2v.report.*",
        "v2v.image_copy",
        "v2v.image_copy.*",
        "v2v.opening",
        "v2v.opening.*",
        "v2v.api",
        "v2v.api.*",
    ),
    "user": ("v2v.ui", "v2v.doctor", "v2v.cli", "v2v.cli.*"),
}

HEAVY = (
    "guestfs nbd libvirt paramiko pyVmomi lxml yaml jinja2 shtab "
    "ovirtsdk4 ovirt_imageio openstack kubernetes proxmoxer requests"
)

# Modules of the siblings' row that never import each other.
SIBLINGS = ("v2v.coordinator", "v2v.inputs", "v2v.outputs", "conversion")


def row_of(module: str) -> int:
    for number, patterns in enumerate(ROWS.values()):
        if any(fnmatch(module, pattern) for pattern in patterns):
            return number
    raise LookupError(f"{module}: tell tests/test_layers.py which row it belongs to")


def sibling_of(module: str) -> str | None:
    return next((s for s in SIBLINGS if module == s or module.startswith(f"{s}.")), None)


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted([*ROOT.glob("v2v/**/*.py"), *ROOT.glob("conversion/**/*.py")]):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    found.pop("v2v")  # its names resolve lazily, whatever their row
    return found


MODULES = modules()


def imports(path: Path) -> Iterator[str]:
    """The project's modules that a file imports at run time, wherever in the file."""
    for node in _run_time_nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [name for name in inner if name in MODULES]
            yield from found
            if len(found) < len(inner) and node.module in MODULES:
                yield node.module


def _run_time_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING:`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _run_time_nodes(node)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    row = row_of(module)
    names = list(ROWS)
    for imported in imports(MODULES[module]):
        assert row_of(imported) <= row, (
            f"{module} ({names[row]}) imports {imported} ({names[row_of(imported)]})"
        )
        mine, theirs = sibling_of(module), sibling_of(imported)
        if mine and theirs:
            assert mine == theirs, f"{module} imports its sibling {imported}"


@pytest.mark.parametrize("kind", ["inputs", "outputs"])
def test_modes_share_through_helpers_only(kind: str) -> None:
    """A mode imports no other mode: what they share is in a file that begins with `_`."""
    for module, path in MODULES.items():
        if module.startswith(f"v2v.{kind}."):
            for imported in imports(path):
                if imported.startswith(f"v2v.{kind}."):
                    assert imported.split(".")[2].startswith("_"), f"{module} imports {imported}"


def test_the_walk_sees_imports() -> None:
    """The rule would be worth nothing if the walk saw nothing."""
    assert "v2v.job" in set(imports(MODULES["v2v.converter"]))
    assert "v2v.api" in set(imports(MODULES["v2v.cli.convert"]))  # inside a function


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import v2v", f"{HEAVY} rich msgspec platformdirs"),
        ("import v2v.cli.main", f"{HEAVY} rich v2v.api"),
    ],
)
def test_import_is_cheap(statement: str, heavy: str) -> None:
    code = f"{statement}\nimport sys\nprint(*[m for m in {heavy.split()!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == []
