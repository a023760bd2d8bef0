"""The places that the demo completes and the edit that it makes, derived from the repository's files alone."""

from __future__ import annotations

import ast
import hashlib
import keyword
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_MAX_FILES = 300
"""Files that are parsed to find places and names."""

_MAX_LINE = 120
_WORD = re.compile(r"[a-z]{4,}")


@dataclass(frozen=True)
class Place:
    """A cursor in a document: `text` is the document, `expected` the rest of the line in the file or after the edit."""

    path: str
    text: str
    line: int
    column: int
    expected: str

    @property
    def before(self) -> str:
        """The line up to the cursor."""
        return self.text.split("\n")[self.line][: self.column]


@dataclass(frozen=True)
class Edit:
    """A new function and its first uses.

    appended: the text to append to each file.
    probes: three places where the new name is expected: an import, a call, and a call whose first word is typed.
    """

    name: str
    module: str
    appended: Mapping[str, str]
    probes: Sequence[Place]


def sample(paths: Iterable[str]) -> list[str]:
    """At most `_MAX_FILES` of the paths, tests first, in an order that depends only on their names."""
    ranked = sorted(paths, key=lambda path: hashlib.sha256(path.encode("utf-8", "surrogatepass")).digest())
    tests = [path for path in ranked if _is_test(path)][: _MAX_FILES // 2]
    return tests + [path for path in ranked if not _is_test(path)][: _MAX_FILES - len(tests)]


def parse(root: Path, paths: Iterable[str]) -> dict[str, tuple[str, ast.Module]]:
    """The text and syntax tree of every file that can be parsed."""
    parsed = {}
    for path in paths:
        try:
            text = (root / path).read_text(encoding="utf-8")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                parsed[path] = (text, ast.parse(text))
        except (OSError, SyntaxError, ValueError, RecursionError):
            continue
    return parsed


def call_places(parsed: Mapping[str, tuple[str, ast.Module]], limit: int) -> list[Place]:
    """Cursors before the value of `x = …` or `return …`, one a file; calls of the repository's functions come first."""
    own = set(_definitions(parsed))
    calls: list[Place] = []
    others: list[Place] = []
    for path, (text, tree) in parsed.items():
        found = list(_values(path, text, tree))
        called = [place for place, value in found if _called(value) in own]
        calls += called[:1]
        others += [place for place, _ in found][:1] if not called else []
    return (calls + others)[:limit]


def plan_edit(root: Path, parsed: Mapping[str, tuple[str, ast.Module]], python: Sequence[str]) -> Edit:
    """A new function in one module, its first uses in up to three others, and the probes in yet another file."""
    name, noun = _new_name(root, parsed, python)
    library = [path for path in parsed if not _is_test(path) and _functions(parsed[path][1])] or list(parsed)
    home = library[0] if library else python[0]
    near = sorted((path for path in parsed if path != home), key=lambda path: (_distance(home, path), path))
    users = near[:3] or ["first_uses.py"]
    module = _module(home)
    appended = {home: f"\n\ndef {name}(value):\n    return value\n"}
    for number, path in enumerate(users):
        ordinal = ("one", "two", "three")[number]
        use = f"def {noun}_{ordinal}(value):\n    {noun} = {name}(value)\n    return {noun} or {name}(None)\n"
        appended[path] = f"\n\nfrom {module} import {name}\n\n\n{use}"
    asked = near[3] if len(near) > 3 else "next_use.py"
    text = parsed[asked][0].rstrip("\n") if asked in parsed else ""
    verb = name.split("_")[0]
    function = f"def {noun}_next(value):\n    {noun} ="
    probes = [
        _at_end(asked, f"{text}\n\n\nfrom {module} import", f" {name}"),
        _at_end(asked, f"{text}\n\n\n{function}", f" {name}(value)"),
        _at_end(asked, f"{text}\n\n\n{function} {verb}_", f"{name.removeprefix(verb + '_')}(value)"),
    ]
    return Edit(name, module, appended, probes)


def _at_end(path: str, text: str, expected: str) -> Place:
    lines = text.split("\n")
    return Place(path, text + "\n", len(lines) - 1, len(lines[-1]), expected)


def _values(path: str, text: str, tree: ast.Module) -> Iterator[tuple[Place, ast.expr]]:
    lines = text.split("\n")
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign | ast.Return) or node.value is None:
            continue
        value = node.value
        line = lines[value.lineno - 1]
        if value.end_lineno != node.lineno or not line.isascii() or len(line) > _MAX_LINE:
            continue
        column = len(line[: value.col_offset].rstrip())
        kept = [*lines[: value.lineno - 1], line[:column], *lines[value.lineno :]]
        yield Place(path, "\n".join(kept), value.lineno - 1, column, line[column:].rstrip()), value


def _called(value: ast.expr) -> str:
    if not isinstance(value, ast.Call):
        return ""
    function = value.func
    return (
        function.id if isinstance(function, ast.Name) else function.attr if isinstance(function, ast.Attribute) else ""
    )


def _definitions(parsed: Mapping[str, tuple[str, ast.Module]]) -> Iterator[str]:
    for _, tree in parsed.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith(
                "__"
            ):
                yield node.name


def _functions(tree: ast.Module) -> list[str]:
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


def _new_name(root: Path, parsed: Mapping[str, tuple[str, ast.Module]], python: Sequence[str]) -> tuple[str, str]:
    """A function name built from the repository's words that does not occur in it, and the noun in that name."""
    verbs: Counter[str] = Counter()
    nouns: Counter[str] = Counter()
    for name in _definitions(parsed):
        words = name.lower().strip("_").split("_")
        if len(words) > 1 and words[0] != "test" and all(map(_WORD.fullmatch, (words[0], words[-1]))):
            verbs[words[0]] += 1
            nouns[words[-1]] += 1
    verb_list = [*_frequent(verbs), "load", "make"]
    noun_list = [*_frequent(nouns), "entry", "record"]
    names = [(f"{verb}_{noun}", noun) for noun in noun_list for verb in verb_list if verb != noun]
    taken = _present(root, python, {name for name, _ in names})
    free = [pair for pair in names if pair[0] not in taken and not keyword.iskeyword(pair[1])]
    return free[0] if free else ("settle_c2l_demo_entry", "entry")


def _frequent(counted: Counter[str]) -> list[str]:
    return [word for word, _ in sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))[:8]]


def _present(root: Path, python: Sequence[str], names: set[str]) -> set[str]:
    """The names that occur in the files."""
    any_name = re.compile("|".join(sorted(map(re.escape, names))))
    found: set[str] = set()
    for path in python:
        try:
            found.update(any_name.findall((root / path).read_text(encoding="utf-8", errors="replace")))
        except OSError:
            continue
    return found


def _is_test(path: str) -> bool:
    return "test" in path.lower()


def _distance(home: str, path: str) -> int:
    """The number of folder steps from one file to the other."""
    one, two = Path(home).parts[:-1], Path(path).parts[:-1]
    shared = sum(1 for _ in _shared(one, two))
    return len(one) + len(two) - 2 * shared


def _shared(one: Sequence[str], two: Sequence[str]) -> Iterator[str]:
    for left, right in zip(one, two, strict=False):
        if left != right:
            return
        yield left


def _module(path: str) -> str:
    parts = list(Path(path).with_suffix("").parts)
    parts = parts[1:] if len(parts) > 1 and parts[0] in ("src", "lib") else parts
    parts = parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts
    return ".".join(parts)
