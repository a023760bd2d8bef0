"""The choice of files that a state is made from."""

from __future__ import annotations

from c2l_lsp.engine.sample import Sample
from c2l_lsp.repo.snapshot import Entry


class Counted(str):
    """A path that counts how often it is compared."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str.__eq__(self, other)


def test_a_checkout_of_many_files_is_noted_in_one_pass():
    """With every file that changed, all that had changed before were looked through: minutes for 50,000."""
    files = 2_000
    after = {Counted(f"{number}.py"): Entry(b"new", 10, 0) for number in range(files)}
    sample, Counted.compared = Sample(), 0
    sample.touch({}, after)
    assert sample.touched == [*after]
    assert Counted.compared <= 10 * files
    sample.touch(after, {**after, "0.py": Entry(b"newer", 10, 0)})
    assert sample.touched[-1] == "0.py"
    assert len(sample.touched) == files
