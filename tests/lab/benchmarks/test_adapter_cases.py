"""Cases: no contamination in the states, correct history, spans of every stratum."""

from __future__ import annotations

import pytest
from c2l_lab.repositories import cases, contamination
from c2l_lab.repositories.cases import Sizes
from c2l_lab.repositories.source import History, Snapshot
from c2l_lab.repositories.spans import names_of, spans_of

from c2l_lsp.errors import CorpusError
from tests.support.benchmark_repositories import commit, git, module

SMALL = Sizes(state=6000, targets=2000, least_state=500, least_targets=500, least_file=300, most_file=4000, newest=1)


def _texts(*names: str) -> dict[str, str]:
    return {f"{name}.py": module(name, i, 12) for i, name in enumerate(names)}


def test_planted_copies_and_excerpts_are_found():
    targets = _texts("ledger")
    clean = _texts("planet", "garden")
    copy = targets["ledger.py"]
    lines = copy.splitlines(keepends=True)
    planted = {
        "copy.py": copy,
        "long.py": module("river", 5, 40) + copy,
        "piece.py": "".join(lines[: len(lines) // 3]),
    }
    assert contamination.contaminated({**clean, **planted}, targets).keys() == planted.keys()


def test_file_contaminated_in_past_is_excluded_at_every_age():
    texts = _texts("ledger", "planet", "garden", "river", "meadow")

    class Past(Snapshot):
        ages = (0, 1)

        def touched(self):
            yield "ledger.py"

        def read(self, paths, age):
            found = {path: texts[path] for path in paths}
            if age and "river.py" in found:
                found["river.py"] = texts["ledger.py"]  # yesterday, river was the same file
            return found

    case = cases.build(Past("a/b", "c", texts), Sizes(**{**vars(SMALL), "targets": 1000}))
    assert list(case.targets) == ["ledger.py"]
    assert case.counts["leaks removed"] == 1
    assert all("river.py" not in state for state in [*case.states.values(), *case.trails.values()])


def test_state_and_targets_are_disjoint_and_unknown_texts_are_not_scored():
    texts = _texts(*(f"name{i}" for i in range(9)))
    source = Snapshot("a/b", "c", texts)
    case = cases.build(source, SMALL)
    assert case.targets and not case.targets.keys() & case.state.keys()
    assert set(case.newest) <= case.targets.keys() and not set(case.newest) & case.trails[0].keys()
    allowed = frozenset(cases.name_of(text) for path, text in texts.items() if path != case.newest[0])
    assert case.newest[0] not in cases.build(source, SMALL, allowed).targets
    assert cases.build(Snapshot("a/b", "c", {}), SMALL) == "too little text to score"
    one = {"a.py": module("ledger", 0, 20)}
    assert cases.build(Snapshot("a/b", "c", one), SMALL) == "too little text for a state"


def test_history_follows_renames_and_lists_recently_changed_files(tmp_path):
    git(tmp_path, "init", "-q")
    commit(tmp_path, {"old.py": module("ledger", 1, 20), "still.py": module("planet", 2, 20)})
    git(tmp_path, "mv", "old.py", "new.py")
    commit(tmp_path, {}, "rename")
    commit(tmp_path, {"new.py": module("ledger", 1, 20) + "\nLATE = 1\n"})
    commit(tmp_path, {"bad.py": "def (:\n" * 20, "data.txt": "x"})
    head = git(tmp_path, "rev-parse", "HEAD").strip()
    past = History("a/b", tmp_path / ".git", head, (0, 1, 2, 3, 20))
    assert past.ages == (0, 1, 2, 3)
    assert next(iter(past.touched())) in ("bad.py", "new.py")
    assert past.read(["new.py", "still.py", "bad.py"], 0).keys() == {"new.py", "still.py"}  # bad.py is no Python
    then = past.read(["new.py", "still.py"], 3)
    assert then["new.py"] == module("ledger", 1, 20).strip("\n") + "\n" and "LATE" not in then["new.py"]


def test_case_survives_save_and_load(tmp_path):
    case = cases.build(Snapshot("a/b", "c", _texts(*(f"name{i}" for i in range(6)))), SMALL)
    cases.save(case, tmp_path / "case.json")
    assert cases.load(tmp_path / "case.json") == case
    (tmp_path / "case.json").write_text("{")
    with pytest.raises(CorpusError):
        cases.load(tmp_path / "case.json")


TARGET = '''"""A file with a little of everything in it.

It is long enough before what matters to count as the middle of something, which is what two hundred characters are.
"""

import os
from shop import Basket, price_of


def total(basket: Basket) -> float:
    """The sum."""
    amount = 0.5
    for item in basket.entries:
        amount += price_of(item)
    text = """a string
    over lines with name.attribute in it"""
    label = "the whole basket"  # a comment
    return os.path.getsize(label) + round(amount)
'''


def test_spans_start_at_tokens_and_have_strata():
    spans = spans_of({"a.py": TARGET}, names_of(["def getsize(): pass\nround(entries)"]), 50)
    found = {TARGET[span.start : span.end]: span.stratum for span in spans}
    assert all("\n" not in rest and rest == rest.rstrip() and 3 <= len(rest) <= 60 for rest in found)
    assert found.get("entries:") == "unseen"  # nowhere else in the file, but in the repository
    assert not any("over lines" in rest or "a comment" in rest for rest in found)
    assert [s.start for s in spans] == sorted(s.start for s in spans) and min(s.start for s in spans) >= 200
    lines = [TARGET.count("\n", 0, span.start) for span in spans]
    assert len(lines) == len(set(lines))
    without = spans_of({"a.py": TARGET}, frozenset(), 50)
    assert "unseen" not in {span.stratum for span in without}


def test_spans_are_even_over_strata_and_deterministic():
    texts = _texts("ledger", "planet", "garden")
    known = names_of(["path join total str"])
    few = spans_of(texts, known, 8)
    assert few == spans_of(dict(reversed(texts.items())), known, 8) and len(few) == 8
    counts = {s: sum(span.stratum == s for span in few) for s in {span.stratum for span in few}}
    assert max(counts.values()) <= 8 / len(counts) + 1
