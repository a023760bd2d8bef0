"""`dependencies`: the definitions of the names that a file imports from its own repository, put before the prompt.

The imports of the text before the cursor are resolved to files of the state by module path. Definitions are added, the
latest import first, until the token budget is used.
"""

from __future__ import annotations

import ast
import re
import time
import warnings

from c2l_lab.benchmarks.methods.protocol import Adapters, Fitted, Setup
from c2l_lab.benchmarks.methods.retrieval import budget_of
from c2l_lab.repositories.cases import Case

_FROM = re.compile(r"^[ \t]*from[ \t]+(\.*[\w.]*)[ \t]+import[ \t]+(\([^)]*\)|[^\n#;]+)", re.MULTILINE)
_NAME = re.compile(r"(\w+)(?:\s+as\s+\w+)?")
MAX_LINES = 24
"""Lines of a definition that are used."""


def imported(text: str) -> list[tuple[str, list[str]]]:
    """Module as written and names of every `from … import …`, the latest first."""
    found = [(module, _NAME.findall(names)) for module, names in _FROM.findall(text)]
    return found[::-1]


def definitions(text: str) -> dict[str, str]:
    """Top-level names of a file → the first MAX_LINES lines of their definition."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}  # the file is truncated
    lines, found = text.split("\n"), dict[str, str]()
    for node in body:
        names = [getattr(node, "name", "")] if hasattr(node, "name") else []
        if isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        for name in names:
            found[name] = "\n".join(lines[node.lineno - 1 : node.end_lineno][:MAX_LINES])
    return found


def _module(path: str) -> str:
    return re.sub(r"/__init__$", "", path.removesuffix(".py")).replace("/", ".")


class Dependencies:
    """Resolves imports in the files of the state."""

    name, per_repository, network = "dependencies", False, None

    def __init__(self, setup: Setup) -> None:
        count, size = budget_of(setup.model)
        self._model, self._budget = setup.model, count * size
        self.digest = f"1/{self._budget}"

    def fit(self, case: Case, adapters: Adapters) -> Fitted:
        """A context from the definitions of all files."""
        del adapters
        started = time.perf_counter()
        modules = {_module(path): definitions(text) for path, text in case.state.items()}
        defined = {path: imported(text) for path, text in case.targets.items()}

        def context(before: str, path: str) -> str:
            seen = imported(before) or defined.get(path, [])  # the prefix may lack the imports
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
    """The definition of a name in a module, matched by the end of the module path; leading dots are ignored."""
    tail = module.lstrip(".")
    for known, names in modules.items():
        if name in names and (not tail or known == tail or known.endswith("." + tail)):
            return names[name]
    return ""
