"""Which files a state is made from."""

from __future__ import annotations

import pytest

from c2l_lsp.engine.adaptation import sample as module
from c2l_lsp.engine.adaptation.sample import Sample
from c2l_lsp.repo.history.snapshot import Entry


class Counted(str):
    """A path that counts its comparisons."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str.__eq__(self, other)


def test_many_edited_files_are_recorded_in_one_pass(monkeypatch: pytest.MonkeyPatch):
    """Searching the earlier edits for every changed file took minutes for 50,000 files."""
    files = 2_000
    monkeypatch.setattr(module, "MOST_EDITED_AT_ONCE", files)
    after = {Counted(f"{number}.py"): Entry(b"new", 10, 0) for number in range(files)}
    sample, Counted.compared = Sample(), 0
    sample.note_changes({}, after)
    assert sample.edited == [*after]
    assert Counted.compared <= 10 * files
    sample.note_changes(after, {**after, "0.py": Entry(b"newer", 10, 0)})
    assert sample.edited[-1] == "0.py"
    assert len(sample.edited) == files


def snapshot(files: int, content: bytes) -> dict[str, Entry]:
    return {f"{number}.py": Entry(content + str(number).encode(), 1000, 0) for number in range(files)}


@pytest.mark.parametrize(("files", "recorded"), [(200, 200), (201, 0)])
def test_files_changed_by_a_checkout_do_not_count_as_edited(files: int, recorded: int):
    before, after = snapshot(files, b"old"), snapshot(files, b"new")
    sample = Sample()
    for path in before:
        sample.note_first_text(path, "x = 1\n")
    sample.note_changes(before, after)
    assert len(sample.edited) == recorded
    chosen, _ = sample.choose(after, 40_000)
    assert (len(chosen) > 40) is bool(recorded)  # edited files add up to half of the budget
    outside = next(path for path in after if path not in chosen)
    sample.note_changes(after, {**after, outside: Entry(b"edited", 1000, 0)})
    assert sample.edited[-1] == outside
    first = sample.first_chunks.get(outside, b"")
    assert bool(first) is bool(recorded), "after a checkout the file is a new one: all of it counts"
