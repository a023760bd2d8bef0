"""The shape of the source tree: which way imports go, which library belongs where, what each folder is for.

Every check is also run on a small tree that violates it, so that a check which finds nothing can be trusted.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import architecture

ROOT = Path(__file__).resolve().parent.parent
PRODUCT, LABORATORY = ROOT / "c2l_lsp", ROOT / "lab" / "c2l_lab"
MODULES = architecture.read(PRODUCT, LABORATORY)

BASICS = {
    "c2l_lsp.errors",
    "c2l_lsp.config",
    "c2l_lsp.languages",
    "c2l_lsp.redaction",
    "c2l_lsp.text",
    "c2l_lsp.cooperative",
    "c2l_lsp.regular_files",
}
RUNTIME, LM, GGUF = "c2l_lsp.model.runtime", "c2l_lsp.model.lm", "c2l_lsp.model.gguf_format"
ADAPTER, HYPERNET = "c2l_lsp.model.adapter", "c2l_lsp.model.hypernet"
MODEL = {RUNTIME, LM, ADAPTER}
WIRE = "c2l_lsp.engine.wire"
TRANSPORT, WORKSPACE = "c2l_lsp.server.transport", "c2l_lsp.server.workspace"

ARROWS: dict[str, set[str]] = {
    "c2l_lsp.errors": set(),
    "c2l_lsp.config": {"c2l_lsp.errors", "c2l_lsp.languages"},
    "c2l_lsp.languages": set(),
    "c2l_lsp.text": set(),
    "c2l_lsp.cooperative": set(),
    "c2l_lsp.regular_files": set(),
    "c2l_lsp.redaction": set(),
    "c2l_lsp.isolation": set(),
    # Files of a folder. `history` reads through the filter; `watching` only reports hints.
    "c2l_lsp.repo": BASICS,
    "c2l_lsp.repo.git": BASICS,
    "c2l_lsp.repo.filter": {*BASICS, "c2l_lsp.repo.git"},
    "c2l_lsp.repo.history": {*BASICS, "c2l_lsp.repo.git", "c2l_lsp.repo.filter"},
    "c2l_lsp.repo.watching": {*BASICS, "c2l_lsp.repo.git", "c2l_lsp.repo.filter"},
    # Tensors, from the arithmetic up to hypernetworks.
    "c2l_lsp.model": BASICS,
    RUNTIME: BASICS,
    GGUF: BASICS,
    LM: {*BASICS, RUNTIME, GGUF},
    ADAPTER: {*BASICS, RUNTIME, LM},
    HYPERNET: {*BASICS, *MODEL},
    # The engine process. These three modules are shared by its rooms; `wire` is also the server's.
    WIRE: BASICS,
    "c2l_lsp.engine.device": {"c2l_lsp.errors"},
    "c2l_lsp.engine.events": {"c2l_lsp.errors", WIRE},
    "c2l_lsp.engine.storage": {*BASICS, HYPERNET},
    "c2l_lsp.engine.completion": {
        *BASICS, *MODEL, "c2l_lsp.repo.filter", WIRE, "c2l_lsp.engine.completion.shaping",
    },
    "c2l_lsp.engine.completion.shaping": BASICS,
    "c2l_lsp.engine.indexing": {*BASICS, *MODEL, HYPERNET},
    "c2l_lsp.engine.adaptation": {
        *BASICS, *MODEL, HYPERNET, "c2l_lsp.repo", WIRE,
        "c2l_lsp.engine.device", "c2l_lsp.engine.events", "c2l_lsp.engine.indexing", "c2l_lsp.engine.storage",
    },
    "c2l_lsp.engine": {*BASICS, *MODEL, "c2l_lsp.isolation", "c2l_lsp.engine", "c2l_lsp.repo.filter"},
    # The server process: the editor contract at the bottom, the session that wires everything at the top.
    TRANSPORT: {*BASICS, WIRE, "c2l_lsp.isolation"},
    WORKSPACE: {*BASICS, WIRE},
    "c2l_lsp.server.reporting": {*BASICS, WIRE, TRANSPORT},
    "c2l_lsp.server.completion": {*BASICS, WIRE, TRANSPORT, WORKSPACE, "c2l_lsp.server.reporting"},
    "c2l_lsp.server.followup": {*BASICS, WORKSPACE, "c2l_lsp.repo.filter"},
    "c2l_lsp.server": {*BASICS, WIRE, "c2l_lsp.isolation", "c2l_lsp.server"},
    "c2l_lsp.doctor": {*BASICS, "c2l_lsp.model"},
    "c2l_lsp.cli": {*BASICS, "c2l_lsp.engine", "c2l_lsp.server", "c2l_lsp.doctor"},
    "c2l_lsp.__main__": {"c2l_lsp.isolation", "c2l_lsp.cli"},
    # The laboratory may import all of the product.
    "c2l_lab.corpus": {"c2l_lsp"},
    "c2l_lab.repositories": {"c2l_lsp", "c2l_lab.corpus"},
    "c2l_lab.train": {"c2l_lsp", "c2l_lab.corpus", "c2l_lab.repositories"},
    "c2l_lab.clients": {"c2l_lsp"},
    "c2l_lab.benchmarks": {"c2l_lsp", "c2l_lab.corpus", "c2l_lab.repositories", "c2l_lab.train", "c2l_lab.clients"},
    "c2l_lab.demo": {"c2l_lsp", "c2l_lab.clients"},
    "c2l_lab.cli": {"c2l_lsp", "c2l_lab.corpus", "c2l_lab.train", "c2l_lab.benchmarks", "c2l_lab.demo"},
    "c2l_lab.__main__": {"c2l_lab.cli"},
}  # fmt: skip
"""Room → the rooms it may import. A name stands for everything below it that has no row of its own."""

OWNERS: dict[str, set[str]] = {
    "c2l_lab": {"c2l_lab"},
    "tests": set(),
    "pygls": {"c2l_lsp.server", "c2l_lab.clients"},
    "lsprotocol": {"c2l_lsp.server", "c2l_lab.clients"},
    "watchdog": {"c2l_lsp.repo.watching"},
    "sqlite3": {"c2l_lsp.engine.storage"},
    "filelock": {"c2l_lsp.engine.storage"},
    "gguf": {GGUF, "c2l_lab.benchmarks"},
    "peft": {ADAPTER},
    "tree_sitter": {"c2l_lsp.engine.completion.shaping"},
    "torch": {"c2l_lsp.model", "c2l_lsp.engine", "c2l_lab.train", "c2l_lab.benchmarks"},
    "transformers": {"c2l_lsp.model", "c2l_lab.corpus", "c2l_lab.train", "c2l_lab.benchmarks"},
}
"""Library → the packages that may import it. No module imports the tests; the product never imports the laboratory."""

TORCH_FREE = (
    "c2l_lsp.errors", "c2l_lsp.config", "c2l_lsp.regular_files", "c2l_lsp.repo", WIRE, "c2l_lsp.server",
    "c2l_lsp.doctor", "c2l_lsp.cli", "c2l_lab.cli", "c2l_lab.clients", "c2l_lab.demo",
)  # fmt: skip
"""Packages that are importable without torch and its companions."""
WITH_NUMPY = ("c2l_lsp.repo",)
"""Of these, packages that the engine alone imports, and that may import numpy."""

HEAVY = {"torch", "transformers", "peft", "numpy", "tokenizers", "safetensors"}

SURVEYED, MOST_MODULES = ("c2l_lsp.engine", "c2l_lsp.model"), 12
"""Folders below these hold at most so many modules: what a newcomer surveys at a glance."""


def _rows_without_module() -> list[str]:
    return [room for room in ARROWS if not any(name == room or name.startswith(f"{room}.") for name in MODULES)]


CHECKS: dict[str, Callable[[], list[str]]] = {
    "imports are absolute": lambda: architecture.relative_imports(MODULES),
    "every module has a room": lambda: architecture.without_room(MODULES, ARROWS),
    "every room exists": _rows_without_module,
    "imports go one way": lambda: architecture.forbidden_imports(MODULES, ARROWS),
    "rooms form no cycle": lambda: architecture.cycle(_between_rooms()),
    "modules form no cycle": lambda: architecture.cycle(architecture.module_graph(MODULES)),
    "libraries stay with their owner": lambda: architecture.library_owners(MODULES, OWNERS),
    "folders are surveyable": lambda: architecture.crowded(MODULES, SURVEYED, MOST_MODULES),
    "every module has a docstring": lambda: architecture.undocumented(MODULES),
    "every folder says what belongs there": lambda: architecture.unclear_folders(MODULES),
    "every folder is a package": lambda: architecture.folders_without_init(PRODUCT, LABORATORY),
}


@pytest.mark.parametrize("rule", CHECKS)
def test_the_tree_follows_the_rule(rule: str) -> None:
    found = CHECKS[rule]()
    assert not found, "\n".join(found)


def _between_rooms() -> dict[str, set[str]]:
    """The imports that there are, between rooms. The rooms that wire others (`engine`, `server`) stand above them."""
    graph: dict[str, set[str]] = {room: set() for room in ARROWS}
    for name, targets in architecture.module_graph(MODULES).items():
        if own := architecture.room_of(name, ARROWS):
            graph[own] |= {room for target in targets if (room := architecture.room_of(target, ARROWS))}
    return graph


@pytest.mark.parametrize("numpy", [False, True])
def test_server_and_command_lines_load_no_torch(*, numpy: bool) -> None:
    """Each torch-free module is imported in a fresh process, those that may import numpy in one of their own."""
    free = [name for name in MODULES if architecture.room_of(name, TORCH_FREE) and not name.endswith("__main__")]
    names = [name for name in free if bool(architecture.room_of(name, WITH_NUMPY)) == numpy]
    allowed = {"numpy"} if numpy else set()
    code = (
        "import importlib, sys\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(name)\n"
        f"heavy = {HEAVY - allowed!r} & set(sys.modules)\n"
        "sys.exit(f'loaded: {sorted(heavy)}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_test_modules_outside_packages_have_different_names() -> None:
    """pytest imports such a module by its bare name, and a second one of that name ends the collection."""
    seen: dict[str, Path] = {}
    for path in sorted(Path(__file__).parent.rglob("test_*.py")):
        if (path.parent / "__init__.py").exists():
            continue
        assert path.name not in seen, f"{path} and {seen[path.name]}"
        seen[path.name] = path


# --- every check finds its violation ---------------------------------------------------------------------------------

Tree = Callable[..., dict[str, architecture.Module]]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Build a package `p` from file names and sources, and read it."""

    def build(**sources: str) -> dict[str, architecture.Module]:
        for name, source in {"__init__": '"""The package. Nothing else."""\n', **sources}.items():
            path = tmp_path / "p" / f"{name.replace('__', '/') if not name.startswith('__') else name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source, encoding="utf-8")
        return architecture.read(tmp_path / "p")

    return build


ROOMS = {"p.high": {"p.low"}, "p.low": set()}


def test_a_forbidden_import_is_found(tree: Tree) -> None:
    modules = tree(high__a='"""A."""\nimport p.low.b\n', low__b='"""B."""\ndef f():\n    from p.high import a\n')
    assert architecture.forbidden_imports(modules, ROOMS) == [
        "p.low.b:3 imports p.high.a, but p.low may not import p.high"
    ]
    assert architecture.cycle(architecture.module_graph(modules)) == ["p.high.a", "p.low.b"]


def test_an_allowed_import_is_not_found(tree: Tree) -> None:
    modules = tree(high__a='"""A."""\nimport p.low.b\nfrom p import __version__\nimport json\n', low__b='"""B."""\n')
    assert architecture.forbidden_imports(modules, ROOMS) == []
    assert architecture.cycle(architecture.module_graph(modules)) == []


def test_a_row_of_its_own_is_not_covered_by_its_parent(tree: Tree) -> None:
    modules = tree(low__b='"""B."""\nimport p.low.deep.c\n', low__deep__c='"""C."""\n')
    assert architecture.forbidden_imports(modules, {"p.low": set(), "p.low.deep": set()}) != []


def test_a_module_in_no_room_is_found(tree: Tree) -> None:
    assert architecture.without_room(tree(attic__a='"""A."""\n'), ROOMS) == ["p.attic.a is in no room"]


def test_a_relative_import_is_found(tree: Tree) -> None:
    assert architecture.relative_imports(tree(a='"""A."""\nfrom . import b\n')) == ["p.a:2 imports ..b"]


def test_a_borrowed_library_is_found(tree: Tree) -> None:
    modules = tree(high__a='"""A."""\nimport torch.nn\n', low__b='"""B."""\nimport torch\n')
    assert architecture.library_owners(modules, {"torch": {"p.low"}}) == ["p.high.a:2 imports torch.nn"]


def test_a_thirteenth_module_is_found(tree: Tree) -> None:
    modules = tree(**{f"low__m{i}": '"""M."""\n' for i in range(13)})
    assert architecture.crowded(modules, ["p.low"], 12) == ["p.low holds 13 modules, at most 12"]
    assert architecture.crowded(modules, ["p.high"], 12) == []
    assert architecture.crowded(modules, ["p.low"], 13) == []


def test_a_module_without_docstring_is_found(tree: Tree) -> None:
    assert architecture.undocumented(tree(a="x = 1\n")) == ["p.a has no docstring"]


@pytest.mark.parametrize(
    "docstring",
    ["", "Everything about files.", "About files. Sockets too.", "About files.\n\nNothing else.\n\nNot sockets."],
    ids=["missing", "one sentence", "no boundary", "too long"],
)
def test_a_folder_without_a_boundary_is_found(tree: Tree, docstring: str) -> None:
    assert len(architecture.unclear_folders(tree(**{"__init__": f'"""{docstring}"""\n'}))) == 1


def test_a_folder_without_init_is_found(tree: Tree, tmp_path: Path) -> None:
    tree(low__b='"""B."""\n')
    assert architecture.folders_without_init(tmp_path / "p") == [f"{tmp_path / 'p' / 'low'} has no __init__.py"]
