"""Checks of completions in VS Code: ghost text, acceptance, turning completions off."""

from __future__ import annotations

import json
import time

from tests.editors.vscode.steps import (
    COMPLETE,
    EXECUTE,
    LINE,
    accepted,
    answered,
    applied,
    begin,
    discard,
    first_line,
    saved,
    wait_for_ghost,
)
from tests.editors.vscode.workbench import Workbench


def ghost_text_is_accepted(vscode: Workbench) -> None:
    """Tab accepts the ghost text; the saved file contains the text that the server sent."""
    before = begin(vscode, "accept.py")
    vscode.type(LINE)
    ghost = wait_for_ghost(vscode)
    vscode.screenshot("ghost")
    vscode.press("Tab")
    item = accepted(vscode)
    assert first_line(item) in ghost, f"the editor showed {ghost!r}, the server sent {item['insertText']!r}"
    saved(vscode, "accept.py", applied(before + LINE, item))


def alt_bracket_shows_the_next_candidate(vscode: Workbench) -> None:
    """An explicit request returns several candidates, and Alt+] shows the next one."""
    begin(vscode, "cycle.py")
    vscode.type("x = ")
    vscode.press("Escape")
    vscode.press("Alt+Backslash")
    first = wait_for_ghost(vscode)
    vscode.press("Alt+]")
    vscode.until("the next candidate", lambda: vscode.ghost() not in ("", first), 30)


def a_word_is_accepted(vscode: Workbench) -> None:
    """Ctrl+Right accepts a part of the ghost text, which the server infers from the edit."""
    before = begin(vscode, "partial.py")
    vscode.type(LINE)
    wait_for_ghost(vscode)
    item = answered(vscode)
    vscode.press("Control+ArrowRight")
    vscode.press("Escape")
    text = saved(vscode, "partial.py", None)
    whole, start = applied(before + LINE, item), before + LINE
    assert whole.startswith(text.rstrip("\n")) and len(text) > len(start), f"{text!r} is not a part of {whole!r}"


def typing_the_completion_keeps_the_rest(vscode: Workbench) -> None:
    """Typing the shown text keeps the rest of it, and accepting the rest inserts nothing twice."""
    before = begin(vscode, "through.py")
    vscode.type(LINE)
    wait_for_ghost(vscode)
    whole = applied(before + LINE, answered(vscode))
    typed = whole[len(before + LINE) :][:2]
    assert typed.isprintable(), f"the completion begins with {typed!r}"
    vscode.type(typed, delay=300)
    vscode.until("the rest of the ghost text", lambda: vscode.ghost() and not vscode.ghost().startswith(typed), 30)
    vscode.press("Tab")
    saved(vscode, "through.py", whole)


def turning_off_hides_completions_and_shows_the_reason(vscode: Workbench) -> None:
    """Turning completions off in the menu hides ghost text, and the status shows the reason."""
    begin(vscode, "toggle.py")
    vscode.choose("Turn completions off", screenshot="menu")
    try:
        vscode.until("the status to show off", lambda: "off" in vscode.status(), 20)
        assert "Completions are turned off" in vscode.status_label()
        vscode.to_end()
        vscode.type(LINE)
        time.sleep(3)
        assert vscode.ghost() == ""
        assert not [one for one in vscode.messages(answer=COMPLETE)[-1:] if (one["result"] or {}).get("items")]
    finally:
        vscode.screenshot("off")
        toggled = [one["params"]["command"] for one in vscode.messages(method=EXECUTE)].count("c2l.toggle")
        if toggled and "off" in vscode.status():
            vscode.choose("Turn completions on")
            vscode.until("the status to show on", lambda: "off" not in vscode.status(), 20)
        discard(vscode)


def turning_off_a_language_applies_at_once(vscode: Workbench) -> None:
    """Turning a language off in the menu changes the user settings and applies at once."""
    begin(vscode, "settings.py")
    settings = vscode.work / "data" / "User" / "settings.json"
    vscode.choose("Turn off for python")
    try:
        vscode.until("the setting", lambda: json.loads(settings.read_text()).get("c2l.enable") == {"python": False}, 20)
        vscode.until("the status to show off", lambda: "off here" in vscode.status(), 20)
        assert "off for this language" in vscode.status_label()
        vscode.to_end()
        vscode.type(LINE)
        time.sleep(2)
        assert vscode.ghost() == ""
    finally:
        vscode.choose("Turn on for python")
        discard(vscode)
    vscode.generation(0)
    vscode.to_end()
    vscode.type(LINE)
    wait_for_ghost(vscode)
    discard(vscode)
