"""What a user installs: the wheel's contents, its entry point, its pins, and the generated parts of README."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from c2l_lsp.model.runtime import kernel
from docs import settings_table

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT / "c2l_lsp" / "assets"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Names inside the wheel, built as pip would from the tracked files."""
    import shutil

    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    shutil.copytree(ROOT / "c2l_lsp", source / "c2l_lsp", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    code = "import setuptools.build_meta as b, sys; print(b.build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(out)], cwd=source, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (file,) = out.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        return archive.namelist()


def test_the_wheel_holds_every_module_and_the_model(wheel: list[str]):
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "c2l_lsp").rglob("*.py")}
    assets = {path.relative_to(ROOT).as_posix() for path in ASSETS.rglob("*") if path.is_file()}
    assert (modules | assets | {"c2l_lsp/py.typed"}) - set(wheel) == set()
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        Path(name).name for name in wheel if name.startswith("c2l_lsp/assets/c2l-nano/")
    }


@pytest.mark.skipif(not kernel.built(), reason="the kernel was not built: no C compiler at installation")
def test_the_wheel_holds_the_kernel_for_every_python(wheel: list[str]):
    (compiled,) = [name for name in wheel if name.endswith((".so", ".pyd"))]
    assert compiled.startswith("c2l_lsp/model/runtime/_kernel.")
    assert ".abi3." in compiled or compiled.endswith(".pyd")
    assert not [name for name in wheel if name.endswith((".c", ".h"))]


def test_the_wheel_holds_the_licence_and_nothing_beside_the_package(wheel: list[str]):
    assert any(name.endswith("licenses/LICENSE") for name in wheel)
    tops = {name.split("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"c2l_lsp"}


def test_the_model_is_weights_and_text_only():
    kinds = {path.suffix for path in ASSETS.rglob("*") if path.is_file()}
    assert kinds <= {".safetensors", ".json", ".md", ".png", ".txt"}
    assert (ASSETS / "c2l-nano" / "README.md").read_text(encoding="utf-8").startswith("---\nlicense: apache-2.0")


def test_the_console_script_is_the_command_line():
    (script,) = [entry for entry in distribution("c2l-lsp").entry_points if entry.group == "console_scripts"]
    assert (script.name, script.value) == ("c2l-lsp", "c2l_lsp.cli:main")
    assert callable(script.load())


def _constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {re.sub(r"[-_.]+", "-", pin.name).lower(): str(pin.specifier) for pin in pins}


def test_every_dependency_is_pinned_to_one_plain_version():
    pins = _constraints()
    needed = [Requirement(text) for text in distribution("c2l-lsp").requires or []]
    for requirement in needed:
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": "dev"}):
            continue
        assert name in pins, f"{name} is not in constraints.txt"
        assert requirement.specifier.contains(pins[name].removeprefix("==")), name
    for name, pin in pins.items():
        assert re.fullmatch(r"==[0-9][0-9a-z.]*", pin), f"{name}{pin}: no local tags, no ranges"


def test_the_readme_holds_the_settings_as_they_are():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme == settings_table.renewed(readme), "run: python docs/settings_table.py README.md"


def test_files_that_the_readme_links_to_exist():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [link.split("#")[0] for link in re.findall(r"\]\((?!https?:|#)([^)]+)\)", readme)]
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]
