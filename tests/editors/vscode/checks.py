"""All checks of VS Code, the planted faults that each must detect, and the code to run one.

A check is a function that performs a user's steps and raises AssertionError if the result is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from tests.editors.vscode.adapter_checks import (
    a_changed_file_changes_completions,
    an_untrusted_folder_is_not_indexed,
    each_folder_has_its_own_adapter,
    fine_tuning_starts_and_stops,
    the_report_buttons_delete_and_export,
    the_report_shows_the_newest_generation,
)
from tests.editors.vscode.completion_checks import (
    a_word_is_accepted,
    alt_bracket_shows_the_next_candidate,
    ghost_text_is_accepted,
    turning_off_a_language_applies_at_once,
    turning_off_hides_completions_and_shows_the_reason,
    typing_the_completion_keeps_the_rest,
)
from tests.editors.vscode.follow_up_checks import (
    a_follow_up_edit_is_applied_everywhere_after_its_preview,
    a_follow_up_edit_is_shown_on_its_line,
    a_longer_name_is_shown_as_ghost_text,
)
from tests.editors.vscode.notebook_checks import a_notebook_cell_sees_the_other_cells
from tests.editors.vscode.server_checks import (
    a_killed_server_is_restarted,
    a_missing_server_is_set_up,
    a_model_setting_restarts_the_server,
    a_resting_cursor_is_reported,
    a_setting_applies_without_a_restart,
    an_invalid_server_path_is_reported,
    switches_persist_across_server_and_window,
)
from tests.editors.vscode.steps import discard
from tests.editors.vscode.workbench import Workbench

WITHOUT_MODEL = (
    a_resting_cursor_is_reported,
    a_setting_applies_without_a_restart,
    a_model_setting_restarts_the_server,
    a_missing_server_is_set_up,
    an_invalid_server_path_is_reported,
    a_follow_up_edit_is_shown_on_its_line,
    a_longer_name_is_shown_as_ghost_text,
    a_follow_up_edit_is_applied_everywhere_after_its_preview,
    a_notebook_cell_sees_the_other_cells,
)
"""Checks of how the extension manages the server process, of follow-up edits and notebooks; they depend on no model."""


@dataclass(frozen=True)
class Fault:
    """A planted fault (see `fault_proxy.py`) and a pattern that the failing check's message must match."""

    name: str
    symptom: str


CHECKS: dict[Callable[[Workbench], None], tuple[Fault, ...]] = {
    ghost_text_is_accepted: (Fault("wrong-text", "the editor showed|the file ends with"),),
    alt_bracket_shows_the_next_candidate: (Fault("empty-results", "ghost text"),),
    a_word_is_accepted: (Fault("wrong-text", "is not a part of"),),
    typing_the_completion_keeps_the_rest: (Fault("wrong-text", "the rest of the ghost text|the file ends with"),),
    turning_off_hides_completions_and_shows_the_reason: (Fault("ignore-toggle", "the status to show off"),),
    turning_off_a_language_applies_at_once: (Fault("drop-settings-change", "the status to show off"),),
    a_resting_cursor_is_reported: (Fault("drop-cursor", "the cursor.s place"),),
    a_setting_applies_without_a_restart: (Fault("exit-on-settings-change", "the server was restarted"),),
    a_model_setting_restarts_the_server: (Fault("drop-user-settings", "the other model"),),
    switches_persist_across_server_and_window: (Fault("drop-switches", "the status to remain off"),),
    fine_tuning_starts_and_stops: (Fault("ignore-fine-tuning", "fine-tuning to start"),),
    a_changed_file_changes_completions: (Fault("first-generation-texts", "no completion has changed"),),
    the_report_shows_the_newest_generation: (Fault("wrong-generation", "in the report"),),
    the_report_buttons_delete_and_export: (Fault("ignore-reset", "the adapter to be deleted"),),
    a_killed_server_is_restarted: (Fault("exit-at-start", "for the server"),),
    a_missing_server_is_set_up: (
        Fault("notifications-off", "a notification"),
        Fault("no-package", "could not be set up"),
    ),
    an_invalid_server_path_is_reported: (Fault("notifications-off", "a notification"),),
    a_follow_up_edit_is_shown_on_its_line: (Fault("no-code-actions", "the new name on the line"),),
    a_longer_name_is_shown_as_ghost_text: (Fault("wrong-text", "the editor showed"),),
    a_follow_up_edit_is_applied_everywhere_after_its_preview: (Fault("unconfirmed-edits", "bulk-edit-panel"),),
    a_notebook_cell_sees_the_other_cells: (Fault("drop-notebooks", "ghost text"),),
    each_folder_has_its_own_adapter: (Fault("drop-notifications", "in the status"),),
    an_untrusted_folder_is_not_indexed: (
        Fault("always-trusted", "the folder was indexed"),
        Fault("drop-trust-change", "a generation after 0"),
    ),
}


def run(vscode: Workbench, check: Callable[[Workbench], None]) -> None:
    try:
        check(vscode)
    except AssertionError:
        vscode.screenshot(f"failed-{check.__name__}")
        recover(vscode)
        raise


def recover(vscode: Workbench, *, restart: bool = False) -> None:
    """Undo what a failed check left behind: open dialogs, unsaved edits, a dead server."""
    for _ in range(3):
        vscode.press("Escape")
    vscode.clear_notifications()
    discard(vscode)
    if restart or not re.search(r"g\d", vscode.status()):
        starts = len(vscode.messages(method="initialize"))
        vscode.command("Restart the Server")
        vscode.until("a new server", lambda: len(vscode.messages(method="initialize")) > starts, 120)
    vscode.until("a status", lambda: re.search(r"g\d|off", vscode.status()), 180)
    if "off" in vscode.status():  # a switch that the extension persisted and a faulty server lost
        vscode.choose("Turn completions on")
    vscode.generation(0)
