"""`dependencies`: the definitions of what the file imports from its own repository, put before the prompt.

The imports of the text before the cursor are resolved to files of the state by their module path; of each imported name
the signature, docstring and attributes come first, whole definitions while there is room.
"""

from __future__ import annotations

import ast
import re
import time
import warnings

from c2l_lab.benchmarks.methods.protocol import Adapters, Fitted, Kit
from c2l_lab.benchmarks.methods.retrieval import budget_of
from c2l_lab.benchmarks.repositories.cases import Case

_FROM = re.compile(r"^[ \t]*from[ \t]+(\.*[\w.]*)[ \t]+import[ \t]+(\([^)]*\)|[^\n#;]+)", re.MULTILINE)
_NAME = re.compile(r"(\w+)(?:\s+as\s+\w+)?")
LINES = 24
"""Lines of a definition that are shown at most."""


def imported(text: str) -> list[tuple[str, list[str]]]:
    """(module as written, names) of every `from … import …`, the latest first."""
    found = [(module, _NAME.findall(names)) for module, names in _FROM.findall(text)]
    return found[::-1]


def definitions(text: str) -> dict[str, str]:
    """Top-level names of a file → the lines that define them, at most LINES."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}  # a file that was cut off
    lines, found = text.split("\n"), dict[str, str]()
    for node in body:
        names = [getattr(node, "name", "")] if hasattr(node, "name") else []
        if isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        for name in names:
            found[name] = "\n".join(lines[node.lineno - 1 : node.end_lineno][:LINES])
    return found


def _module(path: str) -> str:
    return re.sub(r"/__init__$", "", path.removesuffix(".py")).replace("/", ".")


class Dependencies:
    """Import resolution in the state's files."""

    name, own, network = "dependencies", False, None

    def __init__(self, kit: Kit) -> None:
        count, size = budget_of(kit.model)
        self._model, self._budget = kit.model, count * size
        self.digest = f"1/{self._budget}"

    def fit(self, case: Case, adapters: Adapters) -> Fitted:
        """The definitions of all files, by module."""
        del adapters
        started = time.perf_counter()
        modules = {_module(path): definitions(text) for path, text in case.state.items()}
        defined = {path: imported(text) for path, text in case.targets.items()}

        def context(before: str, path: str) -> str:
            seen = imported(before) or defined.get(path, [])  # a clipped prefix: an editor has the file's head too
            shown: list[str] = []
            room = self._budget
            for module, names in seen:
                for name in names:
                    text = _lookup(modules, module, name)
                    cost = len(self._model.encode(text)) + 1
                    if text and text not in shown and cost <= room:
                        shown.append(text)
                        room -= cost
            return "\n".join(reversed(shown)) + "\n" if shown else ""

        return Fitted(context=context, budget=self._budget, seconds=time.perf_counter() - started)


def _lookup(modules: dict[str, dict[str, str]], module: str, name: str) -> str:
    """A definition by the end of its module's path; relative dots are dropped."""
    tail = module.lstrip(".")
    for known, names in modules.items():
        if name in names and (not tail or known == tail or known.endswith("." + tail)):
            return names[name]
    return ""
