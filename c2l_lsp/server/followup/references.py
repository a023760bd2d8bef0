"""The places of a module that need a followed edit. Strings and comments have none. Reads no files.

A name counts only if the syntax shows what it refers to: by its scope, by an import of the edited module, or by `self`.
An attribute of another object counts only if nothing else in the folder is known to have one of that name, and if the
file names the class.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from c2l_lsp.server.followup.recognition import SELF, FollowedEdit, Target
from c2l_lsp.server.followup.syntax import Module, Occurrence, Scope, classes_of, dotted

_ROOTS = frozenset({(), ("src",), ("lib",), ("python",)})
"""Folders below which absolute imports usually start, beside those around the importing file."""


@dataclass(frozen=True, order=True)
class Place:
    """A part of one line, in code points, and the text that it gets. `line_text`: the line as it was found."""

    line: int
    start: int
    end: int
    text: str
    line_text: str = ""


@dataclass
class Surroundings:
    """What is known of the folder. Modules are named by their parts from the folder's root.

    `exporters`: the modules from which the target, or the function, can be imported. `unique`: whether no other class
    has an attribute of the target's name.
    """

    exporters: set[tuple[str, ...]] = field(default_factory=set)
    unique: bool = False


def module_parts(path: str) -> tuple[str, ...]:
    """The name of the module in a file, given by its path in the folder."""
    parts = tuple(re.sub(r"\.pyi?$", "", path).split("/"))
    return parts[:-1] if parts[-1] == "__init__" else parts


def find_places(module: Module, edit: FollowedEdit, path: str, known: Surroundings, *, origin: bool) -> list[Place]:
    """The places in one file, in order. `origin`: it is the file of the edit itself."""
    found: list[Place] = []
    if edit.function is not None:
        functions = {id(one.node) for one in _references(module, edit.function, path, known, origin=origin)}
        for one in module.names:
            called = one.node.func if isinstance(one.node, ast.Call) else None
            if one.kind == "keyword" and one.name == edit.old and id(called) in functions:
                found += [_renamed(module, one, edit.new)] if edit.new else _removed(module, one)
    if edit.new and (origin or (edit.function is None and not edit.imported)):
        found += [
            _renamed(module, one, edit.new) for one in _references(module, edit.target, path, known, origin=origin)
        ]
    return sorted(set(found))


def _references(
    module: Module, target: Target, path: str, known: Surroundings, *, origin: bool
) -> Iterator[Occurrence]:
    if target.is_member:
        yield from _members(module, target, known, origin=origin)
    elif origin:
        scope = module.find_scope(target.kind, target.path)
        if scope is not None:
            yield from _of_scope(module, scope, target.name)
    elif target.kind == "module":
        yield from _imported(module, target.name, path, known)


def _of_scope(module: Module, scope: Scope, name: str) -> Iterator[Occurrence]:
    """The names that refer to the binding of a scope, or referred to it before the edit removed it."""
    was_bound = name in scope.bound
    scope.bound.add(name)
    try:
        for one in module.names:
            if one.name == name and one.kind in ("name", "import") and one.scope.resolve(name) is scope:
                yield one
    finally:
        if not was_bound:
            scope.bound.discard(name)


def _members(module: Module, target: Target, known: Surroundings, *, origin: bool) -> Iterator[Occurrence]:
    owner = module.find_scope("class", target.path) if origin else None
    heirs = {id(scope) for scope, bases in classes_of(module) if target.path[-1] in bases}
    if owner is not None:
        heirs.add(id(owner))
        yield from _of_scope(module, owner, target.name)
    known_here = known.unique and (origin or any(one.name == target.path[-1] for one in module.names))
    for one in module.names:
        if one.name != target.name or not isinstance(one.node, ast.Attribute):
            continue
        receiver = dotted(one.node.value)
        if receiver in SELF:
            if id(one.scope.enclosing_class()) in heirs:
                yield one
        elif receiver.rpartition(".")[2] == target.path[-1] or (known_here and not _is_of_module(one, receiver)):
            yield one


def _is_of_module(one: Occurrence, receiver: str) -> bool:
    """Whether an attribute's receiver is a module, or something in it."""
    root = receiver.partition(".")[0]
    scope = one.scope.resolve(root)
    return scope is not None and root in scope.modules


def _imported(module: Module, name: str, path: str, known: Surroundings) -> Iterator[Occurrence]:
    imports = [
        one for one in module.names
        if one.kind == "import" and one.name == name and isinstance(one.node, ast.ImportFrom)
        and is_exporter(one.node, path, known)
    ]  # fmt: skip
    yield from imports
    for scope in {one.scope for one in imports if one.binds}:
        yield from _of_scope(module, scope, name)
    if not name.startswith("_") and any(_is_star(node, path, known) for node in ast.walk(module.tree)):
        unbound = (one for one in module.names if one.name == name and one.kind == "name")
        yield from (one for one in unbound if one.scope.resolve(name) is None)
    modules = _module_names(module, path, known)
    for one in module.names:
        if one.name == name and isinstance(one.node, ast.Attribute) and dotted(one.node.value) in modules:
            yield one


def is_exporter(node: ast.ImportFrom, path: str, known: Surroundings) -> bool:
    """Whether `from … import` names a module from which the target can be imported."""
    return any(_is_module(node.module or "", node.level, parts, path) for parts in known.exporters)


def _is_star(node: ast.AST, path: str, known: Surroundings) -> bool:
    return isinstance(node, ast.ImportFrom) and node.names[0].name == "*" and is_exporter(node, path, known)


def _module_names(module: Module, path: str, known: Surroundings) -> set[str]:
    """The dotted names by which a file refers to the exporting modules."""
    names = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if any(_is_module(alias.name, 0, parts, path) for parts in known.exporters):
                    names.add(alias.asname or alias.name)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                inner = ".".join(part for part in (node.module, alias.name) if part)
                if any(_is_module(inner, node.level, parts, path) for parts in known.exporters):
                    names.add(alias.asname or alias.name)
    return names


def _is_module(name: str, level: int, parts: tuple[str, ...], path: str) -> bool:
    """Whether an import in the file `path` names the module `parts`."""
    named = tuple(name.split(".")) if name else ()
    around = tuple(path.split("/")[:-1])
    if level:
        return level <= len(around) + 1 and (*around[: len(around) + 1 - level], *named) == parts
    root = parts[: len(parts) - len(named)]
    return bool(named) and parts[len(root) :] == named and (root in _ROOTS or around[: len(root)] == root)


def exports(module: Module, name: str, path: str, known: Surroundings) -> bool:
    """Whether a module imports the target under its own name, so that others can import it from there."""
    return any(
        one.kind == "import" and one.name == name and one.binds and one.scope.kind == "module"
        and isinstance(one.node, ast.ImportFrom) and is_exporter(one.node, path, known)
        for one in module.names
    )  # fmt: skip


def attribute_definitions(module: Module, name: str) -> int:
    """How many classes, objects or modules get an attribute of this name in a module."""
    return sum(
        one.name == name and one.binds and (one.kind == "attribute" or one.scope.kind in ("class", "module"))
        for one in module.names
    )


def _renamed(module: Module, one: Occurrence, new: str) -> Place:
    return Place(one.line, one.column, one.column + len(one.name), new, module.lines[one.line])


def _removed(module: Module, one: Occurrence) -> list[Place]:
    """The removal of a keyword argument with its comma; none if it spans lines or its commas cannot be told."""
    call = one.node
    if not isinstance(call, ast.Call):
        return []
    line = module.lines[one.line]
    given: list[ast.expr | ast.keyword] = [*call.args, *call.keywords]
    arguments = sorted(
        (argument.lineno - 1, argument.col_offset, argument.end_lineno or 0, argument.end_col_offset or 0)
        for argument in given
    )
    at = next(index for index, row in enumerate(arguments) if row[:2] == (one.line, len(line[: one.column].encode())))
    _, _, last, end = arguments[at]
    if last - 1 != one.line:
        return []
    stop = len(line.encode()[:end].decode())
    start = one.column
    behind = re.match(r"\s*,[ \t]*", line[stop:])
    if behind is not None and at + 1 < len(arguments):
        stop += behind.end()
    elif at:
        before = re.search(r",\s*$", line[:start])
        if before is None:
            return []
        start = before.start()
    elif behind is not None:
        stop += behind.end()
    return [Place(one.line, start, stop, "", line)]
