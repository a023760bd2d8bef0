"""Every reason for silence, and what an explicit request passes."""

from __future__ import annotations

import pytest

from c2l_lsp.config import Settings, merge
from c2l_lsp.server.completion.eligibility import Spot, Switches, closed, in_comment
from c2l_lsp.server.transport.protocol import SENTENCES, Reason


def made(**values: object) -> Settings:
    settings, errors = merge(Settings(), values, source="test", machine=True)
    assert not errors
    return settings


def spot(before: str = "x = ", after: str = "", language: str = "python", *, invoked: bool = False) -> Spot:
    return Spot("file:///a.py", language, before, after, invoked)


@pytest.mark.parametrize(
    ("settings", "switches", "place", "reason", "when_invoked"),
    [
        ({}, Switches(), spot(), None, None),
        ({}, Switches(everything=False), spot(), Reason.OFF, Reason.OFF),
        ({}, Switches(), spot(language="plaintext"), Reason.LANGUAGE, Reason.LANGUAGE),
        ({"enable": {"*": False, "python": True}}, Switches(), spot(), None, None),
        ({"enable": {"*": False}}, Switches(), spot(), Reason.LANGUAGE, Reason.LANGUAGE),
        ({}, Switches(languages={"python": False}), spot(), Reason.LANGUAGE, Reason.LANGUAGE),
        ({}, Switches(documents={"file:///a.py": False}), spot(), Reason.BUFFER, Reason.BUFFER),
        ({}, Switches(documents={"file:///a.py": True}), spot(language="plaintext"), None, None),
        ({}, Switches(snoozed_until=200.0), spot(), Reason.SNOOZED, None),
        ({}, Switches(snoozed_until=50.0), spot(), None, None),
        ({"completion.trigger": "manual"}, Switches(), spot(), Reason.MANUAL, None),
        ({}, Switches(), spot(after="something else"), Reason.LINE_SUFFIX, None),
        ({}, Switches(), spot(after="))))]]]}}},,,;"), None, None),
        ({"completion.maxLineSuffix": 20}, Switches(), spot(after="something else"), None, None),
        ({"completion.minChars": 3}, Switches(), spot(before="   ab"), Reason.MIN_CHARS, None),
        ({"completion.minChars": 3}, Switches(), spot(before="   abc"), None, None),
        ({"completion.inComments": False}, Switches(), spot(before="x = 1  # no"), Reason.COMMENT, None),
        ({"completion.inComments": False}, Switches(), spot(before="x = '#"), None, None),
    ],
)
def test_reasons(
    settings: dict, switches: Switches, place: Spot, reason: Reason | None, when_invoked: Reason | None
) -> None:
    assert closed(made(**settings), switches, place, now=100.0) is reason
    asked = Spot(place.uri, place.language, place.before, place.after, invoked=True)
    assert closed(made(**settings), switches, asked, now=100.0) is when_invoked


def test_comments_of_other_languages() -> None:
    assert in_comment("go", "x := 1 // here")
    assert not in_comment("go", 'x := "http://a')
    assert not in_comment("unheard-of", "# // --")


def test_every_reason_has_a_sentence() -> None:
    assert set(SENTENCES) == set(Reason)
