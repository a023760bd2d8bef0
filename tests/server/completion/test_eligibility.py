"""Every reason to refuse a completion, for automatic and for explicit requests."""

from __future__ import annotations

import pytest

from c2l_lsp.config import Settings, merge
from c2l_lsp.server.completion.eligibility import CursorContext, Switches, in_comment, ineligibility
from c2l_lsp.server.transport.protocol import SENTENCES, Reason


def settings_with(**values: object) -> Settings:
    settings, errors = merge(Settings(), values, source="test", machine=True)
    assert not errors
    return settings


def cursor(before: str = "x = ", after: str = "", language: str = "python", *, invoked: bool = False) -> CursorContext:
    return CursorContext("file:///a.py", language, before, after, invoked)


@pytest.mark.parametrize(
    ("settings", "switches", "context", "reason", "when_invoked"),
    [
        ({}, Switches(), cursor(), None, None),
        ({}, Switches(enabled=False), cursor(), Reason.OFF, Reason.OFF),
        ({}, Switches(), cursor(language="plaintext"), Reason.LANGUAGE, Reason.LANGUAGE),
        ({"enable": {"*": False, "python": True}}, Switches(), cursor(), None, None),
        ({"enable": {"*": False}}, Switches(), cursor(), Reason.LANGUAGE, Reason.LANGUAGE),
        ({}, Switches(languages={"python": False}), cursor(), Reason.LANGUAGE, Reason.LANGUAGE),
        ({}, Switches(documents={"file:///a.py": False}), cursor(), Reason.BUFFER, Reason.BUFFER),
        ({}, Switches(documents={"file:///a.py": True}), cursor(language="plaintext"), None, None),
        ({}, Switches(snoozed_until=200.0), cursor(), Reason.SNOOZED, None),
        ({}, Switches(snoozed_until=50.0), cursor(), None, None),
        ({"completion.trigger": "manual"}, Switches(), cursor(), Reason.MANUAL, None),
        ({}, Switches(), cursor(after="something else"), Reason.LINE_SUFFIX, None),
        ({}, Switches(), cursor(after="))))]]]}}},,,;"), None, None),
        ({"completion.maxLineSuffix": 20}, Switches(), cursor(after="something else"), None, None),
        ({"completion.minChars": 3}, Switches(), cursor(before="   ab"), Reason.MIN_CHARS, None),
        ({"completion.minChars": 3}, Switches(), cursor(before="   abc"), None, None),
        ({"completion.inComments": False}, Switches(), cursor(before="x = 1  # no"), Reason.COMMENT, None),
        ({"completion.inComments": False}, Switches(), cursor(before="x = '#"), None, None),
    ],
)
def test_reasons(
    settings: dict, switches: Switches, context: CursorContext, reason: Reason | None, when_invoked: Reason | None
) -> None:
    assert ineligibility(settings_with(**settings), switches, context, now=100.0) is reason
    invoked = CursorContext(context.uri, context.language, context.before, context.after, invoked=True)
    assert ineligibility(settings_with(**settings), switches, invoked, now=100.0) is when_invoked


@pytest.mark.parametrize("language", ["julia", "elixir"])
def test_hash_starts_a_comment(language: str) -> None:
    assert in_comment(language, "x = 1 # here")
    assert not in_comment(language, "x = 1 // 2")


def test_line_comments_of_other_languages() -> None:
    assert in_comment("go", "x := 1 // here")
    assert not in_comment("go", 'x := "http://a')
    assert not in_comment("unheard-of", "# // --")


def test_every_reason_has_a_message() -> None:
    assert set(SENTENCES) == set(Reason)
