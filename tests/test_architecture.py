"""The shape of the package: which way imports go, what stays out of the server's process, how long a module may be."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "c2l_lsp"

ARROWS: dict[str, set[str]] = {
    "__init__": set(),
    "errors": set(),
    "tightened": set(),
    "config": {"errors", "tightened"},
    "config_docs": {"config"},
    "repo": {"config", "errors"},
    "model": {"config", "errors"},
    "engine": {"config", "errors", "model", "repo"},
    "train": {"config", "errors", "model", "repo"},
    "server": {"config", "engine", "errors"},
    "bench": {
        "config",
        "demo",
        "engine",
        "errors",
        "model",
        "repo",
        "server",
        "train",
    },  # measures the whole: the server's suggester, and the server as an editor's client sees it
    "demo": {
        "config",
        "engine",
        "errors",
        "repo",
        "server",
    },  # plays the editor: the server's counterpart, above everything
    "doctor": {"config", "errors", "model"},
    "cli": {"bench", "config", "doctor", "engine", "errors", "server", "train"},
    "__main__": {"cli"},
}
"""Part → the parts it may import. `__version__` is everybody's."""

TORCH_FREE = {"errors", "config", "repo", "server", "demo", "cli"}
"""Parts that must be importable without torch; of `engine` only what `wire` needs."""

ONLY_IMPORTERS = {
    "pygls": {"server", "demo"},  # demo is a client, and pygls has one
    "lsprotocol": {"server", "demo"},
    "watchdog": {"repo", "bench"},  # the soak plants a stall into its reader
    "pathspec": {"repo"},
    "peft": {"model"},
}
"""Library → the parts that know it."""

LONG = {
    "engine/wire.py": "one contract: every frame of the process edge, side by side",
    "engine/adapt.py": "one life: the order of its steps is what there is to read",
    "repo/lines.py": "one algorithm: which lines of two files correspond, as git finds them",
    "server/engine_client.py": "one life: every way the engine process starts, ends and is asked",
    "train/base.py": "one loop, with the optimiser it drives",
}
"""Modules over 300 lines, and why they are not cut."""

MODULES = sorted(path for path in PACKAGE.rglob("*.py"))


def _part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@functools.cache
def _imported(path: Path) -> tuple[tuple[str, int], ...]:
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def test_every_part_has_its_row():
    assert {_part(path) for path in MODULES} - set(ARROWS) == set()


@pytest.mark.parametrize("part", sorted(ARROWS))
def test_imports_go_one_way(part: str):
    wrong = []
    for path in MODULES:
        for name, line in _imported(path) if _part(path) == part else ():
            root, _, rest = name.partition(".")
            target = rest.split(".")[0]
            if root == "c2l_lsp" and target not in {part, "__version__", *ARROWS[part]}:
                wrong.append(f"{path.relative_to(PACKAGE)}:{line} imports {name}")
    assert not wrong


def test_the_arrows_make_no_circle():
    done: set[str] = set()
    while len(done) < len(ARROWS):
        free = {part for part, below in ARROWS.items() if part not in done and below <= done}
        assert free, f"a circle among {set(ARROWS) - done}"
        done |= free


def test_no_module_imports_itself_back():
    """Circles between modules, within a part too; imports inside functions count as well."""
    modules = {_module(path): path for path in MODULES}
    graph = {name: {_resolve(target, modules) for target, _ in _imported(path)} for name, path in modules.items()}
    left = {name: {t for t in below if t in modules and t != name} for name, below in graph.items()}
    for _ in range(len(left)):
        leaves = {name for name, below in left.items() if not below}
        left = {name: below - leaves for name, below in left.items() if name not in leaves}
    assert not left, f"circles among {sorted(left)}"


def _module(path: Path) -> str:
    return ".".join(("c2l_lsp", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


def _resolve(name: str, modules: dict[str, Path]) -> str:
    return name if name in modules else name.rpartition(".")[0]


def test_libraries_stay_with_their_owner():
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line} imports {name}"
        for path in MODULES
        for name, line in _imported(path)
        if _part(path) not in ONLY_IMPORTERS.get(name.split(".")[0], {_part(path)})
    ]
    assert not wrong


def test_server_and_command_line_load_no_torch():
    """In a fresh process, every module of the torch-free parts, and what the server needs of the engine."""
    names = [_module(path) for path in MODULES if _part(path) in TORCH_FREE]
    code = (
        "import importlib, sys\n"
        f"for name in {[*names, 'c2l_lsp.engine.wire']!r}:\n"
        "    importlib.import_module(name)\n"
        "heavy = {'torch', 'transformers', 'peft', 'numpy', 'tokenizers'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {sorted(heavy)}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_modules_stay_short():
    long = {
        path.relative_to(PACKAGE).as_posix()
        for path in MODULES
        if len(path.read_text(encoding="utf-8").splitlines()) > 300
    }
    assert long - set(LONG) == set()


def test_every_module_says_what_it_is():
    assert not [str(path) for path in MODULES if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]


def test_no_two_test_modules_have_one_name():
    """pytest imports a module outside of a package by its bare name: the second one ends the whole collection."""
    bare: dict[str, Path] = {}
    for path in sorted(Path(__file__).parent.rglob("test_*.py")):
        if (path.parent / "__init__.py").exists():
            continue
        assert path.name not in bare, f"{path} and {bare[path.name]}"
        bare[path.name] = path
