from __future__ import annotations

import pytest

from c2l_lsp.server.completion.debounce import LONGEST, SHORTEST, AdaptiveDebounce


def test_it_begins_with_the_setting_and_stays_within_its_bounds() -> None:
    pace = AdaptiveDebounce()
    assert pace.wait(80) == pytest.approx(0.08)
    for overtaken, factor in ((True, LONGEST), (False, SHORTEST)):
        waits = []
        for _ in range(60):
            pace.note(overtaken)
            waits.append(pace.wait(80))
        assert waits == sorted(waits, reverse=not overtaken)
        assert waits[-1] == pytest.approx(0.08 * factor, rel=0.01)


def test_no_debounce_stays_none() -> None:
    assert AdaptiveDebounce(1.0).wait(0) == 0
