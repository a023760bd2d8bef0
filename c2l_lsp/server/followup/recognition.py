"""What an edit did: a name was given another one where it is defined, or a function lost or renamed a parameter.

A false answer is worse than none. Only a definition counts: a name that is exchanged where it is used says nothing
about its other uses.
"""

from __future__ import annotations

import ast
import keyword
from dataclasses import dataclass, replace

from c2l_lsp.server.followup.bursts import WordChange
from c2l_lsp.server.followup.syntax import Function, Module, Occurrence, Scope, parameters

_SHORTEST = 3  # characters of a name that is followed
SELF = ("self", "cls")


@dataclass(frozen=True)
class Target:
    """Something with a name, by the scope that binds it. `kind` and `path` are those of the scope.

    A member of a class has the kind "class": it is referred to as an attribute.
    """

    kind: str
    path: tuple[str, ...]
    name: str

    @property
    def is_member(self) -> bool:
        """Whether it is an attribute or a method of a class."""
        return self.kind == "class"


@dataclass(frozen=True)
class FollowedEdit:
    """An edit that other places need as well: the name of `target` became `new`.

    `imported`: the name was changed where it is imported, so that no other file needs it. `function`: what calls the
    function whose parameter the target is. `new` "": the parameter was removed.
    """

    target: Target
    new: str
    imported: bool = False
    function: Target | None = None

    @property
    def old(self) -> str:
        """The name before the edit."""
        return self.target.name


def recognise(before: Module, after: Module, change: WordChange | None) -> FollowedEdit | None:
    """The edit that leads from one text to another; None if no other place needs it, or if that is not certain."""
    if change is None or not _is_followed(change.old) or not _is_name(change.new):
        return _changed_signature(before, after)
    old, new = before.at(change.line, change.column), after.at(change.line, change.column)
    if old is None or new is None or not (old.binds and new.binds):
        return None
    if (old.kind, old.name, new.name) != (new.kind, change.old, change.new):
        return None
    if old.kind == "parameter":
        return _changed_signature(before, after)
    target = _member_by_self(before, old, change.new) if old.kind == "attribute" else _bound(before, old, change.new)
    return FollowedEdit(target, change.new, old.kind == "import") if target is not None else None


def stands(module: Module, edit: FollowedEdit) -> bool:
    """Whether the new name is still what the edit made it, and the old one is not defined again."""
    scope = module.find_scope(edit.target.kind, edit.target.path)
    if scope is None or edit.old in scope.unclear:
        return False
    if not edit.new:
        return edit.old not in scope.bound
    if edit.target.is_member:
        mine = [one for one in module.names if _is_own_attribute(one, scope) and one.binds]
        known = scope.bound | {one.name for one in mine if one.name == edit.new}
        return edit.new in known and edit.old not in scope.bound
    redefined = any(
        one.name == edit.old and one.kind in ("definition", "parameter") and one.scope is scope for one in module.names
    )
    return edit.new in scope.bound and not redefined


def is_builtin_attribute(name: str) -> bool:
    """Whether objects of Python's own types have such an attribute, so that nothing is known of `x.name`."""
    return name in _BUILTIN_ATTRIBUTES


_TYPES = (str, bytes, bytearray, int, float, complex, list, tuple, dict, set, frozenset, type, object, range, slice)
_OTHERS = ("name", "path", "parent", "read", "write", "close", "open", "args", "exists", "run", "start", "stop", "wait")
_BUILTIN_ATTRIBUTES = frozenset({name for one in (*_TYPES, BaseException) for name in dir(one)} | set(_OTHERS))


def _is_name(word: str) -> bool:
    return word.isidentifier() and not keyword.iskeyword(word)


def _is_followed(word: str) -> bool:
    return len(word) >= _SHORTEST and _is_name(word) and not (word.startswith("__") and word.endswith("__"))


def _bound(before: Module, old: Occurrence, new: str) -> Target | None:
    """The target of a name that its scope binds first here, where the new name was not used."""
    scope = old.scope.resolve(old.name)
    if scope is None or scope is not old.scope or scope.kind in ("lambda", "comprehension"):
        return None
    if old.name in scope.unclear or _is_used(before, scope, new):
        return None
    bindings = [one for one in before.names if _binds(one, old.name, scope)]
    if old.kind in ("definition", "import"):
        only = [one for one in bindings if one.kind != "import"] if old.kind == "definition" else bindings
        if len(only) != 1:
            return None
    elif min(bindings, key=lambda one: (one.line, one.column)) is not old:
        return None
    return Target(scope.kind, scope.path, old.name)


def _binds(one: Occurrence, name: str, scope: Scope) -> bool:
    return one.name == name and one.binds and one.kind != "attribute" and one.scope.resolve(name) is scope


def _is_used(module: Module, scope: Scope, name: str) -> bool:
    """Whether code in a scope used a name before: then the edit refers to something else, and renames nothing."""
    if name in scope.bound:
        return True
    if scope.kind == "class":
        return any(one.name == name and _is_own_attribute(one, scope) for one in module.names)
    depth = len(scope.path)
    kinds = ("name", "definition", "parameter", "import")
    return any(one.name == name and one.kind in kinds and one.scope.path[:depth] == scope.path for one in module.names)


def _member_by_self(before: Module, old: Occurrence, new: str) -> Target | None:
    """The target of `self.name = …` that is the first binding of the name in its class."""
    scope = old.scope.enclosing_class()
    if scope is None or scope.kind != "class" or not _is_own_attribute(old, scope):
        return None
    own = [one for one in before.names if _is_own_attribute(one, scope)]
    bindings = [one for one in own if one.name == old.name and one.binds]
    first = min(bindings, key=lambda one: (one.line, one.column), default=None)
    if first is not old or {old.name, new} & scope.bound or any(one.name == new for one in own):
        return None
    return Target("class", scope.path, old.name)


def _is_own_attribute(one: Occurrence, scope: Scope) -> bool:
    """Whether a name is an attribute of `self` or `cls` in a class."""
    node = one.node
    if one.kind != "attribute" or not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
        return False
    return node.value.id in SELF and one.scope.enclosing_class() is scope


def _changed_signature(before: Module, after: Module) -> FollowedEdit | None:
    """The one parameter of one function that was renamed or removed."""
    found = []
    for scope in before.scopes:
        other = after.find_scope("function", scope.path) if scope.kind == "function" else None
        if other is None or before.find_scope("function", scope.path) is not scope:
            continue
        old, new = scope.node, other.node
        if not isinstance(old, Function) or not isinstance(new, Function):
            continue
        edit = _changed_parameter(scope, old, new)
        if edit is not None and not _is_used(before, scope, edit.new):
            found.append(edit)
    return found[0] if len(found) == 1 else None


def _changed_parameter(
    scope: Scope, before: ast.FunctionDef | ast.AsyncFunctionDef, after: ast.FunctionDef | ast.AsyncFunctionDef
) -> FollowedEdit | None:
    old, new = ([one.arg for one in parameters(function)] for function in (before, after))
    gone, added = [name for name in old if name not in new], [name for name in new if name not in old]
    function = _function(scope)
    if len(gone) != 1 or not _is_followed(gone[0]) or gone[0] in scope.unclear or function is None:
        return None
    target = Target("function", scope.path, gone[0])
    if not added and before.args.kwarg is None:
        return FollowedEdit(target, "", function=function)
    if len(added) != 1 or not _is_name(added[0]):
        return None
    return FollowedEdit(target, added[0], function=function) if old.index(gone[0]) == new.index(added[0]) else None


def _function(scope: Scope) -> Target | None:
    """What is called when a function is: itself, or its class if it is a constructor."""
    around = scope.parent
    if around is None:
        return None
    called = Target(around.kind, around.path, scope.path[-1])
    if not called.is_member or called.name not in ("__init__", "__new__"):
        return called
    outer = around.parent
    return replace(called, kind=outer.kind, path=outer.path, name=around.path[-1]) if outer is not None else None
