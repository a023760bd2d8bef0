"""The documentation: what it links to, names and quotes exists; generated parts are current; the README is short."""

from __future__ import annotations

import ast
import functools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from c2l_lab.cli import app as laboratory

from c2l_lsp.cli import app as product
from tests.soak.__main__ import app as soak

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
NAMED = (
    "README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "lab/README.md", "editors/vscode/README.md",
    "editors/neovim/README.md", "c2l_lsp/assets/c2l-nano/README.md", "c2l_lsp/assets/c2l-small/README.md",
)  # fmt: skip
TEXTS = [*(ROOT / name for name in NAMED), *PAGES]
MOST_WORDS = 900
MOST_CHANGES = 20

LINK = re.compile(r"\]\((?!https?:|#)([^)\s]+)\)")
PATH = re.compile(r"`((?:c2l_lsp|lab|tests|editors|docs)/[\w./-]*\w)`")
CLAIM = re.compile(r"([+−]?\d[\d.,]*)(?: %| points)? \[([+−]?\d[\d.,]*), ([+−]?\d[\d.,]*)\]")
"""A measured value with its interval: 13.0 % [11.4, 14.7]."""
COMMAND = re.compile(r"(c2l-lsp|c2l-lab|python -m tests\.soak)((?: [a-z]+)*)([^`#|\"\n]*)")
PROGRAMS = {"c2l-lsp": product, "c2l-lab": laboratory, "python -m tests.soak": soak}
NAME = re.compile(r"`([\w/]+\.py)` → `([\w.]+)`")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def broken_links(text: str, folder: Path) -> list[str]:
    """Relative links to files that do not exist."""
    return [link for link in LINK.findall(text) if not (folder / link.split("#")[0]).exists()]


def missing_paths(text: str) -> list[str]:
    """Paths of this repository, in backticks, that do not exist."""
    return [path for path in PATH.findall(text) if not (ROOT / path).exists()]


def missing_names(text: str) -> list[str]:
    """`file.py` → `Name` pairs whose file does not define the name (a module's, or `Class.method`)."""
    return [f"{path}: {name}" for path, name in NAME.findall(text) if name not in _defined(ROOT / path)]


def _defined(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
            inner = node.body if isinstance(node, ast.ClassDef) else []
            functions = ast.FunctionDef | ast.AsyncFunctionDef
            found |= {f"{node.name}.{one.name}" for one in inner if isinstance(one, functions)}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


@functools.cache
def _strings_of_the_product() -> tuple[str, ...]:
    """Every string literal of the product, with the constant parts of f-strings."""
    return tuple(
        node.value
        for path in (ROOT / "c2l_lsp").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def unknown_messages(text: str) -> list[str]:
    """Messages quoted in the table of messages that the product cannot produce. "…" stands for a name or a value."""
    table = text.partition("\n## Messages\n")[2].partition("\n## ")[0]
    parts = [
        part.strip() for message in re.findall(r"^\| \*(.+?)\* \|", table, re.MULTILINE) for part in message.split("…")
    ]
    return [part for part in parts if len(part) > 3 and not any(part in known for known in _strings_of_the_product())]


def unknown_options(text: str) -> list[str]:
    """Commands with options that do not exist. A word that is no subcommand is an argument."""
    found = []
    for program, words, rest in COMMAND.findall(text.replace("\\\n", " ")):
        command: Any = typer.main.get_command(PROGRAMS[program])
        for word in words.split():
            command = getattr(command, "commands", {}).get(word, command)
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        wanted = re.findall(r"(?<= )--[a-z-]+", rest)
        found += [f"{program}{words} {option}" for option in wanted if option not in {*known, "--help"}]
    return found


@functools.cache
def _measured() -> tuple[tuple[float, float, float], ...]:
    """Value and interval of every row in lab/results, as a number and as per cent."""
    found = []
    for path in (ROOT / "lab" / "results").glob("*.json"):
        for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
            if row["low"] is not None:
                found += [(scale * row["value"], scale * row["low"], scale * row["high"]) for scale in (1, 100)]
    return tuple(found)


def unmeasured_claims(text: str) -> list[str]:
    """Values with an interval that no row of lab/results rounds to."""
    return [
        claim[0] for claim in CLAIM.finditer(text) if not any(_rounds_to(row, claim.groups()) for row in _measured())
    ]


def _rounds_to(row: tuple[float, float, float], claim: tuple[str, ...]) -> bool:
    for number, shown in zip(row, claim, strict=True):
        digits = shown.replace("−", "-").replace(",", "")
        half = 0.5001 * 10.0 ** -len(digits.partition(".")[2])
        if abs(number - float(digits)) > half:
            return False
    return True


def navigation() -> set[str]:
    """Pages that mkdocs.yml names."""
    return set(
        re.findall(r"^\s*- (?:\w[\w ]*: )?([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M)
    )


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_links_lead_to_files(path: Path) -> None:
    assert broken_links(path.read_text(encoding="utf-8"), path.parent) == []


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_named_paths_exist(path: Path) -> None:
    assert missing_paths(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_named_symbols_exist(path: Path) -> None:
    assert missing_names(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_documented_commands_exist(path: Path) -> None:
    assert unknown_options(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_measured_claims_are_in_the_results(path: Path) -> None:
    assert unmeasured_claims(path.read_text(encoding="utf-8")) == []


def test_architecture_answers_six_questions() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.partition("## Where to change what")[2].partition("\n### ")[0]
    assert len(NAME.findall(table)) == 6


def test_quoted_messages_exist() -> None:
    assert unknown_messages((ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")) == []


def test_every_page_is_in_the_navigation() -> None:
    assert navigation() == {path.name for path in PAGES}


def test_glossary_is_alphabetical_and_defines_each_term_once() -> None:
    terms = re.findall(r"^- \*\*(.+?)\*\*", (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert terms == sorted(set(terms), key=str.casefold)


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= MOST_WORDS


def test_first_version_has_a_short_changelog() -> None:
    lines = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").partition("\n## ")[2].splitlines()
    assert len([line for line in lines[1:] if line.strip()]) <= MOST_CHANGES


def generators() -> Iterator[tuple[str, list[str]]]:
    """The commands of `make generate`."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = re.search(r"^generate:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert recipe is not None
    for line in recipe[1].splitlines():
        words = line.split()[1:]  # without the interpreter
        yield words[0], words


@pytest.mark.parametrize(("name", "command"), [pytest.param(*one, id=one[0]) for one in generators()])
def test_generated_files_are_current(name: str, command: list[str]) -> None:
    """A failure says what to do: `make generate`."""
    done = subprocess.run(
        [sys.executable, *command, "--check"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{name} is out of date; run: make generate\n{done.stdout}{done.stderr}"


# --- every check finds its violation ---------------------------------------------------------------------------------


def test_broken_references_are_found() -> None:
    assert broken_links("[a](nowhere.md) [b](glossary.md#x) [c](https://x.y)", ROOT / "docs") == ["nowhere.md"]
    assert missing_paths("`c2l_lsp/nowhere.py` `docs/glossary.md` `lab/results`") == ["c2l_lsp/nowhere.py"]
    assert missing_names("`c2l_lsp/config.py` → `Nothing`") == ["c2l_lsp/config.py: Nothing"]
    assert missing_names("`c2l_lsp/config.py` → `Settings.nothing`") == ["c2l_lsp/config.py: Settings.nothing"]
    assert missing_names("`c2l_lsp/config.py` → `Settings.enabled_for`") == []
    assert unknown_options("`c2l-lsp adapt . --out x --no-such`\n--else") == ["c2l-lsp adapt --no-such"]
    assert unmeasured_claims("13.0 % [11.4, 14.7], 13.0 % [11.4, 99.9]") == ["13.0 % [11.4, 99.9]"]
    assert unknown_messages("\n## Messages\n| *c2l.… is no message of ours* | x |") == ["is no message of ours"]
