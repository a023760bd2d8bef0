"""The problems in the extension's unit tests are those that the server sends. Needs no editor.

`python tests/editors/vscode/test_problems.py` updates problems.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from c2l_lsp.config import Model, Settings, merge
from c2l_lsp.errors import C2LError, EngineError, ModelError, SettingError, StorageError
from c2l_lsp.model.lm import base
from c2l_lsp.repo.filter.ignore import IgnoreRules
from c2l_lsp.server.transport.messages import Messages

FILE = Path(__file__).resolve().parents[3] / "editors" / "vscode" / "test" / "problems.json"
USERS = "/home/me/.config/c2l/config.toml"


def setting_error(values: dict, *, machine: bool = False, file: str = "") -> C2LError:
    return merge(Settings(), values, source=file or "the workspace settings", machine=machine, file=file)[1][0]


def model_error(**settings: object) -> C2LError:
    try:
        base.load(Model(**settings))
    except ModelError as error:  # the rest of the message is transformers' own and depends on its version
        return ModelError(str(error).partition("): ")[0])
    raise AssertionError(settings)


def ignore_file_error() -> C2LError:
    try:
        IgnoreRules(Path("/"), merge(Settings(), {"files.ignoreFile": "../x"}, source="x", machine=True)[0].files)
    except SettingError as error:
        return error
    raise AssertionError("the file name was accepted")


def problems() -> dict[str, dict]:
    """Return the problems that the server sends to the editor, by name."""
    errors = {
        "unknown key": setting_error({"completion": {"colour": 1}}),
        "wrong value": setting_error({"completion": {"debounceMs": "soon"}}),
        "not for a workspace": setting_error({"model": {"path": "/evil"}}),
        "looser than the user's": setting_error({"files": {"respectGitignore": False}}),
        "wrong in the user's file": setting_error({"completion": {"colour": 1}}, machine=True, file=USERS),
        "wrong for a folder": ignore_file_error(),
        "no model in the folder": model_error(path="/nowhere"),
        "no such model": model_error(id="nobody/none", offline=True),
        "the engine ended": EngineError("The engine ended with code 9."),
        "disk full": StorageError("The state cannot be saved in /state: No space left on device."),
    }
    sent: list[dict] = []
    messages = Messages(
        lambda method, params: sent.append(params) if method == "c2l/problem" else None, lambda: "always"
    )
    messages.structured = True
    for error in errors.values():
        messages.error(error)
    return dict(zip(errors, sent, strict=True))


def test_problems_of_the_unit_tests_are_up_to_date() -> None:
    assert json.loads(FILE.read_text(encoding="utf-8")) == problems()


if __name__ == "__main__":
    FILE.write_text(json.dumps(problems(), indent=2) + "\n", encoding="utf-8")
    sys.exit()
