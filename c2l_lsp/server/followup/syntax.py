"""The names of a Python module: where each stands, and in which scope it is bound. Knows no files and no edits.

The text is parsed by `ast`, never executed. Columns count code points.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

Function = (ast.FunctionDef, ast.AsyncFunctionDef)
_Comprehension = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_DEFINITION = re.compile(r"(?:async\s+def|def|class)\s+")
_LONGEST = 512 * 1024  # characters of a text that is parsed


@dataclass(eq=False)
class Scope:
    """A module, class, function or comprehension. `path`: the names of the classes and functions around it and its own.

    `bound`: the names that it binds. `outer`: those that it declares global or nonlocal. `modules`: those that `import`
    binds. `unclear`: names that it binds at places which are not known.
    """

    kind: str
    path: tuple[str, ...]
    parent: Scope | None = None
    node: ast.AST | None = None
    bound: set[str] = field(default_factory=set)
    outer: dict[str, str] = field(default_factory=dict)
    modules: set[str] = field(default_factory=set)
    unclear: set[str] = field(default_factory=set)

    def resolve(self, name: str) -> Scope | None:
        """The scope whose binding a name refers to in this scope; None for a builtin or an undefined name."""
        scope: Scope | None = self
        while scope is not None:
            if scope.outer.get(name) == "global":
                return scope.module
            visible = scope.kind != "class" or scope is self
            if visible and name in scope.bound and name not in scope.outer:
                return scope
            scope = scope.parent
        return None

    @property
    def module(self) -> Scope:
        """The outermost scope."""
        return self if self.parent is None else self.parent.module

    def enclosing_class(self) -> Scope | None:
        """The innermost class around code of this scope; None outside every class."""
        return self if self.kind == "class" or self.parent is None else self.parent.enclosing_class()


@dataclass(frozen=True)
class Occurrence:
    """A name in the text. `kind`: name, attribute, keyword, definition, parameter, or import.

    `node`: the expression of a name or an attribute, the Call of a keyword, the statement of a definition or an import.
    """

    name: str
    line: int
    column: int
    kind: str
    scope: Scope
    binds: bool = False
    node: ast.AST | None = None


@dataclass
class Module:
    """A parsed text: its lines with their endings, and all its names in the order of the syntax tree."""

    lines: list[str]
    tree: ast.Module
    scope: Scope
    scopes: list[Scope]
    names: list[Occurrence]

    def at(self, line: int, column: int) -> Occurrence | None:
        """The name that starts at a position."""
        return next((one for one in self.names if (one.line, one.column) == (line, column)), None)

    def find_scope(self, kind: str, path: tuple[str, ...]) -> Scope | None:
        """The only scope with this kind and path; None if there is none, or more than one."""
        found = [scope for scope in self.scopes if (scope.kind, scope.path) == (kind, path)]
        return found[0] if len(found) == 1 else None


def parse(lines: list[str]) -> Module | None:
    """The names of a module with these lines (with their endings); None if it cannot be parsed."""
    text = "".join(lines)
    if len(text) > _LONGEST:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the text: invalid escapes, comparisons by `is`
            tree = ast.parse(text)
        return _Reader(lines, tree).module
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.arg]:
    """All parameters of a function, in order."""
    args = function.args
    extra = [one for one in (args.vararg, args.kwarg) if one is not None]
    return sorted(
        [*args.posonlyargs, *args.args, *args.kwonlyargs, *extra], key=lambda one: (one.lineno, one.col_offset)
    )


def dotted(node: ast.AST) -> str:
    """The source of a chain of names, such as `a.b`; "" for any other expression."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (left := dotted(node.value)):
        return f"{left}.{node.attr}"
    return ""


class _Reader:
    """Walks a syntax tree once and collects scopes and names."""

    def __init__(self, lines: list[str], tree: ast.Module) -> None:
        self._lines = lines
        root = Scope("module", ())
        self.module = Module(lines, tree, root, [root], [])
        self._all(tree.body, root)

    def _all(self, nodes: Iterable[ast.AST | None], scope: Scope) -> None:
        for node in nodes:
            if node is not None:
                self._visit(node, scope)

    def _visit(self, node: ast.AST, scope: Scope) -> None:
        if isinstance(node, Function):
            self._function(node, scope)
        elif isinstance(node, ast.Lambda):
            inner = self._inner("lambda", scope, "<lambda>", node)
            self._parameters(node.args, scope, inner)
            self._visit(node.body, inner)
        elif isinstance(node, ast.ClassDef):
            self._defined(node, scope)
            self._all([*node.decorator_list, *node.bases, *node.keywords], scope)
            self._all(node.body, self._inner("class", scope, node.name, node))
        elif isinstance(node, _Comprehension):
            self._comprehension(node, scope)
        else:
            self._simple(node, scope)
            self._all(ast.iter_child_nodes(node), scope)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, scope: Scope) -> None:
        self._defined(node, scope)
        self._all([*node.decorator_list, node.returns], scope)
        inner = self._inner("function", scope, node.name, node)
        self._parameters(node.args, scope, inner)
        self._all(node.body, inner)

    def _parameters(self, args: ast.arguments, scope: Scope, inner: Scope) -> None:
        self._all([*args.defaults, *args.kw_defaults], scope)
        extra = [one for one in (args.vararg, args.kwarg) if one is not None]
        for one in [*args.posonlyargs, *args.args, *args.kwonlyargs, *extra]:
            self._all([one.annotation], scope)
            self._add(one.arg, one.lineno, one.col_offset, "parameter", inner, binds=True, node=one)

    def _comprehension(self, node: ast.AST, scope: Scope) -> None:
        inner = self._inner("comprehension", scope, "<comprehension>", node)
        generators: list[ast.comprehension] = getattr(node, "generators")  # noqa: B009 - of four classes
        self._visit(generators[0].iter, scope)
        for number, one in enumerate(generators):
            self._all([one.target, *([one.iter] if number else []), *one.ifs], inner)
        self._all((getattr(node, name, None) for name in ("elt", "key", "value")), inner)

    def _simple(self, node: ast.AST, scope: Scope) -> None:
        if isinstance(node, ast.Name):
            binds = not isinstance(node.ctx, ast.Load)
            self._add(node.id, node.lineno, node.col_offset, "name", scope, binds=binds, node=node)
        elif isinstance(node, ast.NamedExpr):
            while scope.kind == "comprehension" and scope.parent is not None:
                scope.outer.setdefault(node.target.id, "nonlocal")
                scope = scope.parent
            scope.bound.add(node.target.id)
        elif isinstance(node, ast.Attribute) and node.end_col_offset is not None and node.end_lineno is not None:
            start = node.end_col_offset - len(node.attr.encode())
            binds = isinstance(node.ctx, ast.Store)
            self._add(node.attr, node.end_lineno, start, "attribute", scope, binds=binds, node=node)
        elif isinstance(node, ast.Call):
            for one in node.keywords:
                if one.arg is not None:
                    self._add(one.arg, one.lineno, one.col_offset, "keyword", scope, node=node)
        elif isinstance(node, ast.Global | ast.Nonlocal):
            self._declared(node, scope)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            self._imported(node, scope)
        else:  # names that are bound at places which the tree does not tell
            for attribute in ("name", "rest"):
                name = getattr(node, attribute, None)
                if isinstance(name, str) and not isinstance(node, ast.alias):
                    scope.bound.add(name)
                    scope.unclear.add(name)

    def _defined(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, scope: Scope) -> None:
        line = self._lines[node.lineno - 1]
        start = len(line.encode()[: node.col_offset].decode())
        found = _DEFINITION.match(line, start)
        if found is None:
            scope.bound.add(node.name)
            scope.unclear.add(node.name)
        else:
            column = len(line[: found.end()].encode())
            self._add(node.name, node.lineno, column, "definition", scope, binds=True, node=node)

    def _declared(self, node: ast.Global | ast.Nonlocal, scope: Scope) -> None:
        line = self._lines[node.lineno - 1]
        for name in node.names:
            scope.outer[name] = "global" if isinstance(node, ast.Global) else "nonlocal"
            if scope.outer[name] == "global":
                scope.module.bound.add(name)
            found = re.search(rf"\b{re.escape(name)}\b", line)
            if found is not None:
                self._add(name, node.lineno, len(line[: found.start()].encode()), "name", scope)

    def _imported(self, node: ast.Import | ast.ImportFrom, scope: Scope) -> None:
        for alias in node.names:
            if isinstance(node, ast.Import):
                scope.modules.add(alias.asname or alias.name.partition(".")[0])
            if isinstance(node, ast.ImportFrom) and alias.name != "*":
                kind = "import"
                self._add(alias.name, alias.lineno, alias.col_offset, kind, scope, binds=not alias.asname, node=node)
            elif not alias.asname:
                scope.bound.add(alias.name.partition(".")[0])
                scope.unclear.add(alias.name.partition(".")[0])
            if alias.asname and alias.end_lineno is not None and alias.end_col_offset is not None:
                start = alias.end_col_offset - len(alias.asname.encode())
                self._add(alias.asname, alias.end_lineno, start, "name", scope, binds=True)

    def _add(
        self, name: str, lineno: int, offset: int, kind: str, scope: Scope, *, binds: bool = False,
        node: ast.AST | None = None,
    ) -> None:  # fmt: skip
        if binds and kind != "attribute":
            scope.bound.add(name)
        line = self._lines[lineno - 1]
        column = offset if line.isascii() else len(line.encode()[:offset].decode(errors="ignore"))
        if line[column : column + len(name)] == name:  # not so for a name that Unicode normalisation changed
            self.module.names.append(Occurrence(name, lineno - 1, column, kind, scope, binds, node))
        elif kind != "keyword":
            scope.unclear.add(name)

    def _inner(self, kind: str, scope: Scope, name: str, node: ast.AST) -> Scope:
        inner = Scope(kind, (*scope.path, name), scope, node)
        self.module.scopes.append(inner)
        return inner


def classes_of(module: Module) -> Iterator[tuple[Scope, set[str]]]:
    """Every class of a module, with the last names of its bases."""
    for scope in module.scopes:
        if isinstance(scope.node, ast.ClassDef):
            yield scope, {name for base in scope.node.bases if (name := dotted(base).rpartition(".")[2])}
