"""Training data of `evo`: held-out files, renames, and which commits count."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch
from c2l_lab.train.hypernet import streams
from c2l_lab.train.hypernet.data import Sizes

from c2l_lsp.model.hypernet.encoder import EmbeddingEncoder
from c2l_lsp.repo.history.git_history import Change
from tests.support.training_text import module

torch.set_num_threads(1)
SIZES = Sizes(files=6, chars=2000, windows=2, window=24, commits=4)
GIT = ("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")


def run(root: Path, *words: str) -> None:
    subprocess.run([*GIT, *words], cwd=root, check=True, capture_output=True, timeout=30)


def commit(root: Path, files: dict[str, str | None]) -> None:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            (root / path).unlink()
        else:
            (root / path).write_text(text, encoding="utf-8")
    run(root, "add", "-A")
    run(root, "commit", "-q", "-m", "x")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six commits; one changes only tests; one renames."""
    repo = tmp_path / "mirror" / "o+n" / "repo"
    repo.mkdir(parents=True)
    run(repo, "init", "-q", "-b", "main")
    commit(repo, {f"pkg/{n}.py": module(n, i) for i, n in enumerate(("alpha", "beta", "gamma", "delta", "eps"))})
    commit(repo, {"pkg/alpha.py": module("alpha", 7), "pkg/beta.py": module("beta", 8)})
    commit(repo, {"tests/test_it.py": module("it")})
    commit(repo, {"pkg/gamma.py": module("gamma", 9), "pkg/zeta.py": module("zeta", 3)})
    commit(repo, {"pkg/zeta.py": None, "pkg/moved.py": module("zeta", 3) + "LAST = 1\n"})
    commit(repo, {"pkg/delta.py": module("delta", 11), "pkg/moved.py": module("zeta", 3) + "LAST = 2\n"})
    return repo


def test_only_commits_that_change_production_code_are_steps(root: Path):
    steps = streams.production_steps(root, 10)
    assert len(steps) == 4
    assert all(step.changes for step in steps)
    assert steps[0].after != steps[1].before  # the commit that changes only tests is skipped
    assert len(streams.production_steps(root, 2)) == 2
    assert streams.production_steps(root, 2)[-1].after == steps[-1].after


def test_older_steps_are_joined_to_larger_and_larger_changes(root: Path):
    steps = streams.production_steps(root, 99)
    found = streams.grouped(root, steps, 10)
    assert [step.after for step in found] == [steps[1].after, steps[2].after, steps[3].after]
    assert (found[0].before, found[0].changes) != (steps[1].before, steps[1].changes)
    assert {c.path for c in found[0].changes} >= {c.path for c in steps[1].changes}
    assert streams.grouped(root, steps, 2) == steps[-2:]


def test_held_out_files_are_followed_through_renames():
    renamed = Change("renamed", "a.py", "b.py", "1", "2")
    step = streams.Step("x", "y", [renamed])
    assert streams.held_out([step]) == {"a.py", "b.py"}


def test_held_out_files_are_in_no_diff_and_no_snapshot(root: Path, tiny, monkeypatch):
    seen: list[str] = []

    class Spy(EmbeddingEncoder):
        def files(self, texts, cache=None):
            seen.extend(texts)
            return super().files(texts, cache)

        def diffs(self, diffs):
            seen.extend(diffs)
            return super().diffs(diffs)

    made = streams.stream_maker(tiny, Spy.of_base(tiny), SIZES, root.parents[1])("o/n", [])
    held = streams.held_out(streams.grouped(root, streams.production_steps(root, 99), 4))
    assert held
    stems = {"zeta" if "moved" in path or "zeta" in path else Path(path).stem for path in held}
    assert seen
    for stem in stems:
        assert not any(f"def {stem}_0(" in text for text in seen), stem
    assert len(made.diffs) == 3
    assert set(made.owner.tolist()) <= {1, 2, 3}
    assert len(made.ids) >= 2
    texts = [tiny.decode(row.tolist()) for row in made.ids]
    assert any(f"number {n}" in text for text in texts for n in (3, 7, 8, 9, 11))


def test_near_duplicate_of_a_target_is_not_in_the_snapshot():
    target = module("one")
    kept = streams._without_near_duplicates([target.replace("return", "return ", 1), module("two", 5)], [target])
    assert kept == [module("two", 5)]


def test_missing_repository_gives_none(tmp_path: Path, tiny):
    assert streams.stream_maker(tiny, EmbeddingEncoder.of_base(tiny), SIZES, tmp_path)("no/where", []) is None
