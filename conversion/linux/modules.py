"""Kernel modules: what depmod wrote about them, read and written without running anything.

The text formats are those of modules.dep(5) and modules.builtin; the binary index is kmod's
libkmod/libkmod-index.h (version 2.1).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

MODULE_SUFFIXES = (".ko", ".ko.gz", ".ko.xz", ".ko.zst", ".ko.bz2")


def module_name(path: str) -> str | None:
    """The name the kernel uses for a module's file, or None if the path is not a module's."""
    base = path.rsplit("/", 1)[-1]
    stem, dot, suffix = base.partition(".ko")
    if not dot or f"{dot}{suffix}" not in MODULE_SUFFIXES:
        return None
    return stem.replace("-", "_")


@dataclass(frozen=True, slots=True)
class Modules:
    """The modules of one kernel: where each is, and what it needs."""

    files: Mapping[str, str] = field(default_factory=dict)  # name: path below lib/modules/VERSION
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # in modules.dep's order
    builtin: frozenset[str] = frozenset()

    def has(self, name: str) -> bool:
        return name in self.builtin or name in self.files

    def closure(self, names: Iterable[str]) -> tuple[str, ...]:
        """The modules among `names`, with all they need, that are not built into the kernel."""
        wanted: dict[str, None] = {}
        pending = list(names)
        while pending:
            name = pending.pop()
            if name in wanted or name in self.builtin or name not in self.files:
                continue
            wanted[name] = None
            pending.extend(self.needs.get(name, ()))
        return tuple(sorted(wanted))


def parse_modules(dep: str, builtin: str = "", extra_builtin: Iterable[str] = ()) -> Modules:
    """modules.dep and modules.builtin as one value."""
    files: dict[str, str] = {}
    needs: dict[str, tuple[str, ...]] = {}
    for line in dep.splitlines():
        path, colon, rest = line.partition(":")
        name = module_name(path.strip())
        if not colon or name is None:
            continue
        files[name] = path.strip()
        needs[name] = tuple(n for n in map(module_name, rest.split()) if n)
    inside = {n for n in map(module_name, builtin.split()) if n}
    return Modules(files, needs, frozenset(inside | set(extra_builtin)))


def write_dep(modules: Modules, paths: Mapping[str, str]) -> str:
    """A modules.dep for the modules in `paths` (name: path), as depmod would write it."""
    lines = []
    for name, path in paths.items():
        needs = [paths[n] for n in modules.needs.get(name, ()) if n in paths]
        lines.append(f"{path}:{''.join(f' {need}' for need in needs)}\n")
    return "".join(lines)


# The binary index ---------------------------------------------------------------------------------

INDEX_MAGIC = 0xB007F457
INDEX_VERSION = 0x00020001
NODE_PREFIX = 0x80000000
NODE_VALUES = 0x40000000
NODE_CHILDS = 0x20000000


def dep_index(dep: str) -> bytes:
    """modules.dep.bin for the text of a modules.dep."""
    entries: dict[str, list[tuple[int, str]]] = {}
    for priority, line in enumerate(dep.splitlines()):
        if name := module_name(line.partition(":")[0]):
            entries.setdefault(name, []).append((priority, line))
    return write_index(entries)


def write_index(entries: Mapping[str, list[tuple[int, str]]]) -> bytes:
    """A kmod index: key: [(priority, value)], lowest priority number first."""
    trie = _Node()
    for key, values in entries.items():
        trie.insert(key, values)
    body = bytearray(struct.pack(">II", INDEX_MAGIC, INDEX_VERSION) + bytes(4))
    root = _write_node(trie.compressed(), body)
    body[8:12] = struct.pack(">I", root)
    return bytes(body)


class _Node:
    __slots__ = ("children", "prefix", "values")

    def __init__(self) -> None:
        self.prefix = ""
        self.values: list[tuple[int, str]] = []
        self.children: dict[str, _Node] = {}

    def insert(self, key: str, values: list[tuple[int, str]]) -> None:
        node = self
        for char in key:
            node = node.children.setdefault(char, _Node())
        node.values.extend(values)

    def compressed(self) -> _Node:
        """Fold chains of single children into prefixes."""
        node = self
        prefix = ""
        while not node.values and len(node.children) == 1:
            ((char, child),) = node.children.items()
            prefix += char
            node = child
        folded = _Node()
        folded.prefix = prefix
        folded.values = sorted(node.values)
        folded.children = {char: child.compressed() for char, child in node.children.items()}
        return folded


def _write_node(node: _Node, body: bytearray) -> int:
    """Append the children, then the node; gives the node's offset with its flags."""
    flags = 0
    encoded = bytearray()
    if node.children:
        first, last = min(node.children), max(node.children)
        offsets = [
            _write_node(node.children[chr(c)], body) if chr(c) in node.children else 0
            for c in range(ord(first), ord(last) + 1)
        ]
    offset = len(body)
    if node.prefix:
        encoded += node.prefix.encode("ascii") + b"\0"
        flags |= NODE_PREFIX
    if node.children:
        encoded += bytes((ord(first), ord(last)))
        encoded += struct.pack(f">{len(offsets)}I", *offsets)
        flags |= NODE_CHILDS
    if node.values:
        encoded += struct.pack(">I", len(node.values))
        for priority, value in node.values:
            encoded += struct.pack(">I", priority) + value.encode("utf-8") + b"\0"
        flags |= NODE_VALUES
    body += encoded
    return offset | flags
