"""Places are typed against a side, and counts become rows."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from c2l_lab.benchmarks.perf.typing import Key, Place
from c2l_lab.benchmarks.typing import measure
from c2l_lab.benchmarks.typing.author import Counts, Ghost
from c2l_lab.cli import app
from typer.testing import CliRunner

from c2l_lsp.model.lm.base import ASSETS, NANO

PLACE = Place("a.py", "x = ", "\n", tuple(Key(0.1, letter) for letter in "foo(a)"))


class FakeSide:
    """Answers with the text that it was made with, once it fits; `slow` answers come after that many seconds."""

    def __init__(self, texts: dict[str, str], slow: float = 0.0) -> None:
        self._texts, self._slow, self._before = texts, slow, ""

    def open(self, path: str, before: str, after: str) -> None:
        self._before = before

    def edit(self, before: str, after: str) -> None:
        self._before = before

    def ask(self, wait_s: float) -> tuple[Ghost | None, bool]:
        text = self._texts.get(self._before)
        return (Ghost(text) if text else None), wait_s >= self._slow


def test_a_place_is_typed_to_its_end() -> None:
    counts = measure.type_place(FakeSide({}), PLACE)
    assert (counts.keys, counts.pressed, counts.characters, counts.requests) == (6, 6, 6, 5)


def test_an_accepted_text_saves_its_keys() -> None:
    counts = measure.type_place(FakeSide({"x = f": "oo(a)"}), PLACE)
    assert (counts.pressed, counts.whole, counts.wrong) == (2, 1, 0)


def test_an_answer_after_the_next_key_is_late_unless_the_author_is_patient() -> None:
    side = FakeSide({"x = f": "oo(a)"}, slow=1.0)
    assert measure.type_place(side, PLACE).late == 5
    assert measure.type_place(side, PLACE, patience_s=2.0).whole == 1


def test_rows_compare_sides_over_repositories() -> None:
    better, worse = Counts(keys=10, pressed=5, characters=10, wrong=1), Counts(keys=10, pressed=8, characters=10)
    rows = measure.rows({"with": {"a": better, "b": better}, "without": {"a": worse, "b": worse}})
    values = {(row.name, row.method): row.value for row in rows}
    assert values["keystrokes saved", "with"] == pytest.approx(0.5)
    assert values["keystrokes saved", "with − without"] == pytest.approx(0.3)
    assert values["wrong characters shown", "with"] == pytest.approx(10)


def test_counts_survive_the_cache() -> None:
    counts = Counts(keys=3, late=1)
    assert measure.from_values(measure.as_values(counts)) == counts


@pytest.mark.skipif(not (ASSETS / NANO / "model.safetensors").exists(), reason="the shipped model is not here")
def test_the_command_types_a_commit_with_and_without_adapter(tmp_path: Path) -> None:
    """On a repository with one insertion; the checkout is from before it."""
    root = tmp_path / "repository"
    root.mkdir()
    old = "".join(f"def total_{name}(rows):\n    return sum(row.{name} for row in rows)\n\n\n" for name in "abcdef")
    commit = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qam"]
    for number, text in enumerate((old, old + "\n\ndef total_g(rows):\n    return sum(row.g for row in rows)\n")):
        (root / "a.py").write_text(text, encoding="utf-8")
        subprocess.run(["git", "init", "-q", str(root)] if not number else ["true"], check=True)
        subprocess.run(["git", "-C", str(root), "add", "-A"], check=True)
        subprocess.run([*commit, str(number)], check=True)
    result = CliRunner().invoke(
        app, ["bench", "typing", str(root), "--places", "1", "--patient", "--json", str(tmp_path / "out.json")]
    )
    assert result.exit_code == 0, result.output
    assert "keystrokes saved" in (tmp_path / "out.json").read_text(encoding="utf-8")
