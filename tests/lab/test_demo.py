"""The demo: the copy, the choice of places and of the edit, and a whole run."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from c2l_lab.demo import places
from c2l_lab.demo.copy import copy_repository

from c2l_lsp.errors import FolderError

SOURCES = {
    "app/prices.py": """
def load_price(path):
    return float(path.read_text())


def store_price(path, price):
    path.write_text(str(price))
""",
    "app/basket.py": """
from app.prices import load_price


def load_basket(paths):
    total = load_price(paths[0])
    return [load_price(path) for path in paths], total
""",
    "app/report.py": """
from app.basket import load_basket


def print_report(paths):
    basket = load_basket(paths)
    print(basket)
""",
    "app/main.py": """
from app.report import print_report


def run_main():
    print_report([])
""",
    "tests/test_prices.py": """
from app.prices import load_price


def test_load(tmp_path):
    price = load_price(tmp_path / 'p')
    assert price == 1
""",
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "original"
    for path, text in SOURCES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    return root


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout


# --- the copy --------------------------------------------------------------------------------------------------------


def test_copy_of_git_repository_contains_uncommitted_changes(repository: Path, tmp_path: Path):
    (repository / ".gitignore").write_text("ignored.py\n", encoding="utf-8")
    (repository / "ignored.py").write_text("x = 1\n", encoding="utf-8")
    git(repository, "init", "-q")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "one")
    (repository / "app/main.py").write_text("changed = True\n", encoding="utf-8")
    (repository / "app/new.py").write_text("new = True\n", encoding="utf-8")
    (repository / "app/link.py").symlink_to(repository / "app/main.py")
    before = git(repository, "status", "--porcelain")
    copy = copy_repository(repository, tmp_path / "copy")
    assert copy.python == tuple(sorted([*SOURCES, "app/new.py"]))
    assert copy.description == "git repository with 3 uncommitted changes"
    assert (copy.root / "app/main.py").read_text(encoding="utf-8") == "changed = True\n"
    assert git(copy.root, "log", "--format=%s") == "one\n"
    assert "app/main.py" in git(copy.root, "status", "--porcelain")
    (copy.root / "app/main.py").write_text("edited in the copy\n", encoding="utf-8")
    git(copy.root, "commit", "-qam", "two")
    assert git(repository, "status", "--porcelain") == before
    assert git(repository, "log", "--format=%s") == "one\n"


def test_copy_of_plain_folder_omits_virtual_environments(repository: Path, tmp_path: Path):
    for name in (".venv", "node_modules", "__pycache__"):
        (repository / name).mkdir()
        (repository / name / "x.py").write_text("", encoding="utf-8")
    copy = copy_repository(repository, tmp_path / "copy")
    assert copy.python == tuple(sorted(SOURCES))
    assert copy.description == "plain folder"


def test_copy_of_subfolder_has_no_history(repository: Path, tmp_path: Path):
    git(repository, "init", "-q")
    copy = copy_repository(repository / "app", tmp_path / "copy")
    assert "prices.py" in copy.python
    assert copy.description == "part of a git repository, without its history"


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda _: None, "is not a folder; name a repository"),
        (lambda path: path.write_text("x"), "is not a folder; name a repository"),
        (lambda path: path.mkdir(), "holds no Python file, so there is nothing to show"),
    ],
)
def test_unusable_source_prints_one_line_and_exits_with_2(tmp_path: Path, make: object, sentence: str):
    where = tmp_path / "it"
    make(where)  # type: ignore[operator]
    with pytest.raises(FolderError, match=sentence):
        copy_repository(where, tmp_path / "copy")
    done = subprocess.run(
        [sys.executable, "-m", "c2l_lab.demo", str(where)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


# --- the choices -----------------------------------------------------------------------------------------------------


def test_calls_of_repository_functions_come_first(repository: Path):
    parsed = places.parse(repository, places.sample(SOURCES))
    found = places.call_places(parsed, 10)
    assert found[0].path == "tests/test_prices.py"
    assert found[0].before == "    price ="
    assert found[0].expected == " load_price(tmp_path / 'p')"
    for place in found:
        buffer = place.text.split("\n")
        assert buffer[place.line] == place.before
        whole = [*buffer[: place.line], place.before + place.expected, *buffer[place.line + 1 :]]
        assert "\n".join(whole) == SOURCES[place.path]
    assert {place.path for place in found} == {
        "tests/test_prices.py",
        "app/basket.py",
        "app/report.py",
        "app/prices.py",
    }


def test_edit_depends_only_on_files_and_uses_new_name(repository: Path):
    edits = [
        places.plan_edit(repository, places.parse(repository, places.sample(order)), sorted(SOURCES))
        for order in (list(SOURCES), list(reversed(SOURCES)))
    ]
    edit = edits[0]
    assert edits[0] == edits[1]
    assert not any(edit.name in text for text in SOURCES.values())
    verb, noun = edit.name.split("_")
    assert any(verb in text for text in SOURCES.values())
    assert any(noun in text for text in SOURCES.values())
    assert len(edit.appended) == 4
    for path, text in edit.appended.items():
        ast.parse(SOURCES[path] + text)
        assert edit.name in text


def test_probes_do_not_contain_new_name(repository: Path):
    edit = places.plan_edit(repository, places.parse(repository, sorted(SOURCES)), sorted(SOURCES))
    verb, noun = edit.name.split("_")
    assert [probe.before.split()[-1] for probe in edit.probes] == ["import", "=", f"{verb}_"]
    assert [probe.expected for probe in edit.probes] == [f" {edit.name}", f" {edit.name}(value)", f"{noun}(value)"]
    for probe in edit.probes:
        assert probe.path not in edit.appended
        assert edit.name not in probe.text


def test_folder_of_one_file_gets_new_files(tmp_path: Path):
    (tmp_path / "one.py").write_text("x = 1\n", encoding="utf-8")
    edit = places.plan_edit(tmp_path, places.parse(tmp_path, ["one.py"]), ["one.py"])
    assert set(edit.appended) == {"one.py", "first_uses.py"}
    assert edit.module == "one"


def test_unparsable_files_are_skipped(tmp_path: Path):
    (tmp_path / "broken.py").write_text("def (:\n", encoding="utf-8")
    (tmp_path / "bytes.py").write_bytes(b"\xff\xfe")
    (tmp_path / "empty.py").write_bytes(b"")
    names = ["broken.py", "bytes.py", "empty.py", "gone.py"]
    parsed = places.parse(tmp_path, names)
    assert set(parsed) == {"empty.py"}
    assert places.call_places(parsed, 5) == []
    assert places.plan_edit(tmp_path, parsed, names).appended


# --- a whole run with the real server and the shipped model --------------------------------------------------------


@pytest.mark.timeout(420)  # starts the engine three times: seconds each, minutes on a busy machine
def test_demo_runs_all_steps_and_leaves_no_files(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.setenv(name, str(scratch))
    done = subprocess.run(
        [sys.executable, "-m", "c2l_lab.demo", str(repository), "--json"],
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    steps = {step["name"]: step for step in json.loads(done.stdout)["steps"]}
    assert list(steps) == [
        "start the server", "load the model", "index the repository", "adapter off and on", "before the edit",
        "edit on disk", "new adapter", "after the edit", "shut down", "restart the engine", "revert the edit",
        "likelihood, import", "likelihood, call", "likelihood, started call",
    ]  # fmt: skip
    assert "generation 1 knows all 5 files" in steps["index the repository"]["outcome"]
    assert "same prompt length" in steps["adapter off and on"]["outcome"]
    assert "not suggested" in steps["before the edit"]["outcome"]
    assert "generation 2 is live and knows 4 of 4 files" in steps["new adapter"]["outcome"]
    assert "restored from disk" in steps["restart the engine"]["outcome"]
    assert "generation 3" in steps["revert the edit"]["outcome"]
    rows = [step["outcome"] for name, step in steps.items() if name.startswith("likelihood")]
    scores = [list(map(float, re.findall(r"-[\d.]+", row)))[:3] for row in rows]
    assert sum(with_edit - before for before, with_edit, _ in scores) > 0, "the edit raises the likelihood"
    assert all(abs(reverted - before) <= 0.5 for before, _, reverted in scores), "the revert takes it back"
    assert list(scratch.glob("c2l-*")) == []
    assert {path.read_text(encoding="utf-8") for path in repository.rglob("*.py")} == set(SOURCES.values())
