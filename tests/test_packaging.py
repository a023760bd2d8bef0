"""What a user installs: the contents of both wheels, the entry points, the pinned versions."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from c2l_lsp.model.runtime import kernel
from c2l_lsp.repo.filter.randomness import COSTS_FILE
from c2l_lsp.repo.filter.secret_rules import RULES_FILE

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT / "c2l_lsp" / "assets"
LARGEST_WHEEL = 75_000_000
ROOMS = {"repo", "server", "engine", "model", "assets"}
"""The only folders in the wheel of c2l-lsp."""
FOREIGN = re.compile(r"(?<![a-z])(bench|corpus|demo|fault|lab|plant|soak|test|train)")
"""Words in a module's path that mark it as training, measurement, demonstration or test."""


@dataclass(frozen=True)
class Wheel:
    names: list[str]
    size: int

    @property
    def modules(self) -> set[str]:
        return {name for name in self.names if name.endswith(".py")}

    @property
    def top_folders(self) -> set[str]:
        return {top for name in self.names if not (top := name.split("/")[0]).endswith(".dist-info")}


def _build(source: Path, out: Path) -> Wheel:
    """`pip wheel` without network: the build backend is the one of this environment."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-cache-dir",
         "--disable-pip-version-check", "--wheel-dir", str(out), str(source)],
        capture_output=True, text=True, timeout=170, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (file,) = out.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        return Wheel(archive.namelist(), file.stat().st_size)


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    source = tmp_path_factory.mktemp("product")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    shutil.copytree(ROOT / "c2l_lsp", source / "c2l_lsp", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    return _build(source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    source = tmp_path_factory.mktemp("laboratory")
    shutil.copy(ROOT / "lab" / "pyproject.toml", source / "pyproject.toml")
    shutil.copytree(ROOT / "lab" / "c2l_lab", source / "c2l_lab", ignore=shutil.ignore_patterns("__pycache__"))
    return _build(source, tmp_path_factory.mktemp("wheel"))


def test_product_wheel_holds_every_module_and_model(product: Wheel) -> None:
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "c2l_lsp").rglob("*.py")}
    assets = {path.relative_to(ROOT).as_posix() for path in ASSETS.rglob("*") if path.is_file()}
    assert modules == product.modules
    data = {f"c2l_lsp/repo/filter/{name}" for name in (COSTS_FILE, RULES_FILE)}
    assert (assets | data | {"c2l_lsp/py.typed"}) - set(product.names) == set()


def test_product_wheel_holds_the_product_only(product: Wheel) -> None:
    assert product.top_folders == {"c2l_lsp"}
    folders = {name.split("/")[1] for name in product.names if name.startswith("c2l_lsp/") and name.count("/") > 1}
    assert folders == ROOMS
    assert [name for name in product.modules if FOREIGN.search(name)] == []


def test_laboratory_wheel_holds_the_laboratory_only(laboratory: Wheel) -> None:
    modules = {path.relative_to(ROOT / "lab").as_posix() for path in (ROOT / "lab" / "c2l_lab").rglob("*.py")}
    assert laboratory.top_folders == {"c2l_lab"}
    assert laboratory.modules == modules


def test_foreign_modules_are_recognised() -> None:
    found = ["c2l_lsp/bench/run.py", "c2l_lsp/engine/planted.py", "c2l_lsp/soak.py", "c2l_lsp/test_a.py"]
    assert [name for name in found if not FOREIGN.search(name)] == []
    assert not FOREIGN.search("c2l_lsp/server/workspace/latest.py")


def test_product_wheel_stays_small(product: Wheel) -> None:
    assert product.size < LARGEST_WHEEL


@pytest.mark.skipif(not kernel.is_available(), reason="the kernel was not built: no C compiler at installation")
def test_product_wheel_holds_one_kernel_for_every_python(product: Wheel) -> None:
    (compiled,) = [name for name in product.names if name.endswith((".so", ".pyd"))]
    assert compiled.startswith("c2l_lsp/model/runtime/_kernel.")
    assert ".abi3." in compiled or compiled.endswith(".pyd")
    assert not [name for name in product.names if name.endswith((".c", ".h"))]


def test_product_wheel_holds_the_licence(product: Wheel) -> None:
    assert any(name.endswith("licenses/LICENSE") for name in product.names)


def test_model_folders_hold_weights_and_text_only() -> None:
    assert {path.suffix for path in ASSETS.rglob("*") if path.is_file()} <= {".safetensors", ".json", ".md", ".png"}


@pytest.mark.parametrize("model", sorted(path.name for path in ASSETS.iterdir() if path.is_dir()))
def test_every_shipped_model_has_a_card_with_its_licence(model: str) -> None:
    assert (ASSETS / model / "README.md").read_text(encoding="utf-8").startswith("---\nlicense: apache-2.0")


@pytest.mark.parametrize(
    ("name", "target"), [("c2l-lsp", "c2l_lsp.__main__:main"), ("c2l-lab", "c2l_lab.cli:main")]
)  # fmt: skip
def test_console_script_is_the_command_line(name: str, target: str) -> None:
    (script,) = [entry for entry in distribution(name).entry_points if entry.group == "console_scripts"]
    assert (script.name, script.value) == (name, target)
    assert callable(script.load())


def test_command_line_loads_neither_torch_nor_the_laboratory() -> None:
    code = "import c2l_lsp.cli, sys; sys.exit(', '.join({'torch', 'c2l_lab'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def _applies(pin: Requirement) -> bool:
    """Whether a pin is for this Python. A name may have one pin below a version of Python and one from it on."""
    return pin.marker is None or pin.marker.evaluate()


def _constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if line and not line.startswith("#")]
    pins = [pin for pin in map(Requirement, lines) if _applies(pin)]
    return {re.sub(r"[-_.]+", "-", pin.name).lower(): str(pin.specifier) for pin in pins}


@pytest.mark.parametrize("pyproject", ["pyproject.toml", "lab/pyproject.toml"])
def test_every_dependency_is_pinned(pyproject: str) -> None:
    project = tomllib.loads((ROOT / pyproject).read_text(encoding="utf-8"))["project"]
    extras = [line for lines in project.get("optional-dependencies", {}).values() for line in lines]
    pins = _constraints()
    for requirement in (Requirement(line) for line in (*project["dependencies"], *extras)):
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name == "c2l-lsp" or (requirement.marker and not requirement.marker.evaluate()):
            continue
        assert name in pins, f"{name} is not in constraints.txt"
        assert requirement.specifier.contains(pins[name].removeprefix("==")), name


def test_every_pin_is_one_plain_version() -> None:
    assert [name for name, pin in _constraints().items() if not re.fullmatch(r"==[0-9][0-9a-z.]*", pin)] == []
