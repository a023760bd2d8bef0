"""Checks of the import graph and of the folders of a source tree. Each returns one sentence a violation."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

Rooms = Mapping[str, set[str]]
"""A package or module → the packages and modules that it may import. The longest matching name wins."""


@dataclass(frozen=True)
class Module:
    """One Python file. `imports` are (absolute dotted name, line)."""

    name: str
    path: Path
    imports: tuple[tuple[str, int], ...]
    docstring: str

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def folder(self) -> str:
        return self.name if self.is_package else self.name.rpartition(".")[0]


def read(*packages: Path) -> dict[str, Module]:
    """Every module of some packages by its dotted name."""
    modules = {}
    for package in packages:
        for path in sorted(package.rglob("*.py")):
            name = ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")
            tree = ast.parse(path.read_text(encoding="utf-8"))
            modules[name] = Module(name, path, tuple(_imports(tree)), ast.get_docstring(tree) or "")
    return modules


def _imports(tree: ast.Module) -> Iterable[tuple[str, int]]:
    """Imports inside functions count too. A relative import is named with its dots."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            yield from ((f"{origin}.{alias.name}", node.lineno) for alias in node.names)


def resolve(name: str, modules: Mapping[str, Module]) -> str:
    """The module that an imported name belongs to; "" for a name of another library."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name


def room_of(module: str, rooms: Iterable[str]) -> str:
    """The longest room that holds a module; "" if none does."""
    return max((room for room in rooms if module == room or module.startswith(f"{room}.")), key=len, default="")


def relative_imports(modules: Mapping[str, Module]) -> list[str]:
    """Imports that are not absolute."""
    return [f"{m.name}:{line} imports {name}" for m in modules.values() for name, line in m.imports if name[0] == "."]


def without_room(modules: Mapping[str, Module], rooms: Rooms) -> list[str]:
    """Modules that no row of the table covers. A top package's `__init__` needs none."""
    return [f"{name} is in no room" for name in modules if "." in name and not room_of(name, rooms)]


def forbidden_imports(modules: Mapping[str, Module], rooms: Rooms) -> list[str]:
    """Imports from one room into another that the table does not allow.

    A top package itself (its `__version__`) may be imported by all of its modules.
    """
    found = []
    for module in modules.values():
        own = room_of(module.name, rooms)
        allowed = rooms.get(own, set())
        for name, line in module.imports:
            target = resolve(name, modules)
            if not target or "." not in target:
                continue
            room = room_of(target, rooms)
            if room != own and room_of(target, allowed) == "":
                found.append(f"{module.name}:{line} imports {target}, but {own or 'it'} may not import {room}")
    return found


def library_owners(modules: Mapping[str, Module], owners: Mapping[str, set[str]]) -> list[str]:
    """Imports of a library outside the packages that own it."""
    return [
        f"{module.name}:{line} imports {name}"
        for module in modules.values()
        for name, line in module.imports
        if (library := name.partition(".")[0]) in owners and not room_of(module.name, owners[library])
    ]


def cycle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """The nodes on cycles, and those between two cycles; none if the graph has no cycle."""
    edges = {(name, target) for name, targets in graph.items() for target in targets if target != name}
    while True:
        starts, ends = {name for name, _ in edges}, {target for _, target in edges}
        inner = {(name, target) for name, target in edges if name in ends and target in starts}
        if inner == edges:
            return sorted(starts)
        edges = inner


def module_graph(modules: Mapping[str, Module]) -> dict[str, set[str]]:
    """Module → the modules it imports."""
    return {
        module.name: {target for name, _ in module.imports if (target := resolve(name, modules))}
        for module in modules.values()
    }


def crowded(modules: Mapping[str, Module], under: Iterable[str], most: int) -> list[str]:
    """Folders below some packages that hold more modules than a reader surveys; `__init__` is not counted."""
    counts: dict[str, int] = {}
    for module in modules.values():
        if not module.is_package and room_of(module.name, under):
            counts[module.folder] = counts.get(module.folder, 0) + 1
    return [f"{folder} holds {count} modules, at most {most}" for folder, count in counts.items() if count > most]


def undocumented(modules: Mapping[str, Module]) -> list[str]:
    """Modules without a docstring."""
    return [f"{module.name} has no docstring" for module in modules.values() if not module.docstring]


_EXCLUDES = re.compile(
    r"\b(no|not|never|nothing|none|neither|only|without|belongs?|live[s]? in|elsewhere)\b", re.IGNORECASE
)


def unclear_folders(modules: Mapping[str, Module]) -> list[str]:
    """Folders whose `__init__` does not say what belongs there and what does not.

    The docstring has at least two sentences: a first line, then at most one paragraph.
    """
    found = []
    for module in modules.values():
        if not module.is_package:
            continue
        sentences = re.findall(r"\.(?=\s|$)", module.docstring)
        if module.docstring.count("\n\n") > 1:
            found.append(f"{module.name}: the docstring is longer than a first line and one paragraph")
        elif len(sentences) < 2 or not _EXCLUDES.search(module.docstring):
            found.append(f"{module.name}: the docstring does not say what belongs there and what does not")
    return found


def folders_without_init(*packages: Path) -> list[str]:
    """Folders of Python files that have no `__init__.py`."""
    folders = {path.parent for package in packages for path in package.rglob("*.py")}
    return [f"{folder} has no __init__.py" for folder in sorted(folders) if not (folder / "__init__.py").exists()]
