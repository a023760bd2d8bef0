from __future__ import annotations

import pytest

from c2l_lsp.server.completion.debounce import MAX_FACTOR, MIN_FACTOR, AdaptiveDebounce


def test_delay_starts_at_the_setting_and_stays_within_its_bounds() -> None:
    debounce = AdaptiveDebounce()
    assert debounce.delay(80) == pytest.approx(0.08)
    for superseded, factor in ((True, MAX_FACTOR), (False, MIN_FACTOR)):
        delays = []
        for _ in range(60):
            debounce.record(superseded)
            delays.append(debounce.delay(80))
        assert delays == sorted(delays, reverse=not superseded)
        assert delays[-1] == pytest.approx(0.08 * factor, rel=0.01)


def test_zero_setting_means_no_delay() -> None:
    assert AdaptiveDebounce(1.0).delay(0) == 0
