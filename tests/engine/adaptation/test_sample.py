"""The choice of files that a state is made from."""

from __future__ import annotations

import pytest

from c2l_lsp.engine.adaptation import sample as module
from c2l_lsp.engine.adaptation.sample import MOST_EDITED_AT_ONCE, Sample
from c2l_lsp.repo.history.snapshot import Entry


class Counted(str):
    """A path that counts how often it is compared."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str.__eq__(self, other)


def test_a_checkout_of_many_files_is_noted_in_one_pass(monkeypatch: pytest.MonkeyPatch):
    """With every file that changed, all that had changed before were looked through: minutes for 50,000."""
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


@pytest.mark.parametrize(("files", "noted"), [(MOST_EDITED_AT_ONCE, MOST_EDITED_AT_ONCE), (MOST_EDITED_AT_ONCE + 1, 0)])
def test_what_a_checkout_changes_is_not_what_somebody_works_on(files: int, noted: int):
    before, after = snapshot(files, b"old"), snapshot(files, b"new")
    sample = Sample()
    for path in before:
        sample.note_first_text(path, "x = 1\n")
    sample.note_changes(before, after)
    assert len(sample.edited) == noted
    chosen, _ = sample.choose(after, 40_000)
    assert (len(chosen) > 40) is bool(noted)  # half of the budget besides for what is worked on
    outside = next(path for path in after if path not in chosen)
    sample.note_changes(after, {**after, outside: Entry(b"edited", 1000, 0)})
    assert sample.edited[-1] == outside
    first = sample.first_chunks.get(outside, b"")
    assert bool(first) is bool(noted), "a file that a checkout replaced is another one: all of it counts"
