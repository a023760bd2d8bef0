"""The checks of VS Code, each with the faults that it must find, and how one is run.

A check is what a user does and sees: a function that holds or raises AssertionError.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from tests.editors.vscode.completing import (
    a_word_is_accepted,
    candidates_cycle,
    ghost_text_is_accepted,
    settings_apply_live,
    turned_off_shows_nothing_and_why,
    typing_along_keeps_it,
)
from tests.editors.vscode.learning import (
    a_changed_file_changes_completions,
    an_untrusted_folder_is_not_learned,
    the_panel_tells,
    the_panels_buttons_work,
    training_is_begun_and_stopped,
    two_folders_are_kept_apart,
)
from tests.editors.vscode.serving import (
    a_killed_server_comes_back,
    a_missing_server_is_set_up,
    a_named_server_that_is_not_there_is_told,
    a_setting_applies_without_a_restart,
    a_setting_of_the_model_restarts_the_server,
    a_switch_outlives_server_and_window,
)
from tests.editors.vscode.steps import discard
from tests.editors.vscode.workbench import Workbench

OF_THE_EXTENSION = (
    a_setting_applies_without_a_restart,
    a_setting_of_the_model_restarts_the_server,
    a_missing_server_is_set_up,
    a_named_server_that_is_not_there_is_told,
)
"""Checks of what the extension does with the server's process: no model has a part in them."""


@dataclass(frozen=True)
class Fault:
    """What is planted (see `between.py`), and what the check must say then."""

    name: str
    symptom: str


CHECKS: dict[Callable[[Workbench], None], tuple[Fault, ...]] = {
    ghost_text_is_accepted: (Fault("wrong-text", "the editor showed|the file ends with"),),
    candidates_cycle: (Fault("no-answers", "grey text"),),
    a_word_is_accepted: (Fault("wrong-text", "is no part of"),),
    typing_along_keeps_it: (Fault("wrong-text", "the rest of the grey text|the file ends with"),),
    turned_off_shows_nothing_and_why: (Fault("deaf", "the status to say off"),),
    settings_apply_live: (Fault("frozen", "the status to say off"),),
    a_setting_applies_without_a_restart: (Fault("restless", "the server was started anew"),),
    a_setting_of_the_model_restarts_the_server: (Fault("unset", "the other model"),),
    a_switch_outlives_server_and_window: (Fault("forgetful", "the status to say off still"),),
    training_is_begun_and_stopped: (Fault("untrained", "the training"),),
    a_changed_file_changes_completions: (Fault("stale", "nothing has changed"),),
    the_panel_tells: (Fault("renumbered", "in the panel"),),
    the_panels_buttons_work: (Fault("unforgotten", "the folder to be forgotten"),),
    a_killed_server_comes_back: (Fault("stay-dead", "for the server"),),
    a_missing_server_is_set_up: (Fault("unsaid", "a notification"), Fault("no-package", "could not be set up")),
    a_named_server_that_is_not_there_is_told: (Fault("unsaid", "a notification"),),
    two_folders_are_kept_apart: (Fault("mute", "in the status"),),
    an_untrusted_folder_is_not_learned: (
        Fault("trusting", "the folder was learned"),
        Fault("distrusting", "a generation after 0"),
    ),
}


def run(shown: Workbench, check: Callable[[Workbench], None]) -> None:
    try:
        check(shown)
    except AssertionError:
        shown.picture(f"failed-{check.__name__}")
        recover(shown)
        raise


def recover(shown: Workbench, *, restart: bool = False) -> None:
    """Whatever a failed check left behind: dialogs, edits, a dead server."""
    for _ in range(3):
        shown.press("Escape")
    shown.clear_notifications()
    discard(shown)
    if restart or not re.search(r"g\d", shown.status()):
        starts = len(shown.passed(method="initialize"))
        shown.command("Restart the Server")
        shown.until("a new server", lambda: len(shown.passed(method="initialize")) > starts, 120)
    shown.until("a status", lambda: re.search(r"g\d|off", shown.status()), 180)
    if "off" in shown.status():  # a switch that the extension kept, and a faulty server forgot
        shown.choose("Turn completions on")
    shown.generation(0)
