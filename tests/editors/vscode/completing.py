"""Checks of completions in VS Code: grey text, taking it, turning it off."""

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
    see_ghost,
)
from tests.editors.vscode.workbench import Workbench


def ghost_text_is_accepted(shown: Workbench) -> None:
    """Type, see grey text, Tab, save: the file holds what the server said."""
    before = begin(shown, "accept.py")
    shown.type(LINE)
    ghost = see_ghost(shown)
    shown.picture("ghost")
    shown.press("Tab")
    item = accepted(shown)
    assert first_line(item) in ghost, f"the editor showed {ghost!r}, the server said {item['insertText']!r}"
    saved(shown, "accept.py", applied(before + LINE, item))


def candidates_cycle(shown: Workbench) -> None:
    """Asked explicitly there are several, and Alt+] goes on to the next."""
    begin(shown, "cycle.py")
    shown.type("x = ")
    shown.press("Escape")
    shown.press("Alt+Backslash")
    first = see_ghost(shown)
    shown.press("Alt+]")
    shown.until("the next candidate", lambda: shown.ghost() not in ("", first), 30)


def a_word_is_accepted(shown: Workbench) -> None:
    """Ctrl+Right takes part of the grey text; the server learns that from the edit alone."""
    before = begin(shown, "partial.py")
    shown.type(LINE)
    see_ghost(shown)
    item = answered(shown)
    shown.press("Control+ArrowRight")
    shown.press("Escape")
    text = saved(shown, "partial.py", None)
    whole, start = applied(before + LINE, item), before + LINE
    assert whole.startswith(text.rstrip("\n")) and len(text) > len(start), f"{text!r} is no part of {whole!r}"


def typing_along_keeps_it(shown: Workbench) -> None:
    """Typing what is shown keeps the rest, and accepting then writes nothing twice."""
    before = begin(shown, "through.py")
    shown.type(LINE)
    see_ghost(shown)
    whole = applied(before + LINE, answered(shown))
    along = whole[len(before + LINE) :][:2]
    assert along.isprintable(), f"the server says {along!r} next"
    shown.type(along, delay=300)
    shown.until("the rest of the grey text", lambda: shown.ghost() and not shown.ghost().startswith(along), 30)
    shown.press("Tab")
    saved(shown, "through.py", whole)


def turned_off_shows_nothing_and_why(shown: Workbench) -> None:
    """The menu turns everything off: no grey text, and the status says why."""
    begin(shown, "toggle.py")
    shown.choose("Turn completions off", picture="menu")
    try:
        shown.until("the status to say off", lambda: "off" in shown.status(), 20)
        assert "Completions are off" in shown.status_spoken()
        shown.to_end()
        shown.type(LINE)
        time.sleep(3)
        assert shown.ghost() == ""
        assert not [one for one in shown.passed(answer=COMPLETE)[-1:] if (one["result"] or {}).get("items")]
    finally:
        shown.picture("off")
        toggled = [one["params"]["command"] for one in shown.passed(method=EXECUTE)].count("c2l.toggle")
        if toggled and "off" in shown.status():
            shown.choose("Turn completions on")
            shown.until("the status to say on", lambda: "off" not in shown.status(), 20)
        discard(shown)


def settings_apply_live(shown: Workbench) -> None:
    """The menu turns a language off in the user's settings: at once nothing is shown, and the status says why."""
    begin(shown, "settings.py")
    settings = shown.work / "data" / "User" / "settings.json"
    shown.choose("Turn off for python")
    try:
        shown.until("the setting", lambda: json.loads(settings.read_text()).get("c2l.enable") == {"python": False}, 20)
        shown.until("the status to say off", lambda: "off here" in shown.status(), 20)
        assert "off for this language" in shown.status_spoken()
        shown.to_end()
        shown.type(LINE)
        time.sleep(2)
        assert shown.ghost() == ""
    finally:
        shown.choose("Turn on for python")
        discard(shown)
    shown.generation(0)
    shown.to_end()
    shown.type(LINE)
    see_ghost(shown)
    discard(shown)
