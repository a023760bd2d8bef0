"""Settings layers: precedence, restrictions of workspaces, errors reported once."""

from __future__ import annotations

import os
from pathlib import Path

from c2l_lsp.server.workspace.settings import NO_FOLDER, SettingsLayers


def make_layers(user: str = "") -> tuple[SettingsLayers, list[str]]:
    Path(os.environ["C2L_CONFIG"]).write_text(user, encoding="utf-8")
    errors: list[str] = []
    return SettingsLayers(lambda error: errors.append(str(error))), errors


def test_later_sources_win() -> None:
    layers, errors = make_layers("[completion]\ndebounceMs = 1\ncandidates = 1\nmaxNewTokens = 1\n")
    layers.set_initial({"completion": {"debounceMs": 2, "candidates": 2}})
    layers.set_pulled({NO_FOLDER: {"completion": {"debounceMs": 3}}, "/a": {"completion.debounceMs": 4}})
    assert errors == []
    outside, inside = layers.effective(NO_FOLDER).completion, layers.effective("/a").completion
    assert (outside.debounce_ms, outside.candidates, outside.max_new_tokens) == (3, 2, 1)
    assert inside.debounce_ms == 4
    assert layers.effective("/unknown").completion.debounce_ms == 3


def test_invalid_key_is_reported_once_and_others_apply() -> None:
    layers, errors = make_layers()
    for _ in range(3):
        layers.set_pulled({NO_FOLDER: {"completion": {"debounceMs": "soon", "candidates": 5, "colour": "red"}}})
        assert layers.effective(NO_FOLDER).completion.candidates == 5
        layers.effective("/a")
    assert len(errors) == 2
    assert "c2l.completion.debounceMs" in errors[0]
    assert "c2l.completion.colour" in errors[1]


def test_workspace_cannot_set_model_server_or_remote() -> None:
    layers, errors = make_layers()
    hostile = {"model": {"path": "/evil"}, "remote": {"url": "https://evil"}, "server.path": "/evil"}
    layers.set_initial(hostile)
    layers.set_pulled({NO_FOLDER: {"c2l": hostile}})
    settings = layers.effective(NO_FOLDER)
    assert (settings.model.path, settings.remote.url, settings.server.path) == ("", "", "")
    assert len(errors) == 6
    assert all("only user settings may set it" in error for error in errors)


def test_echoed_defaults_are_not_errors() -> None:
    layers, errors = make_layers('[model]\nid = "mine"\n')
    layers.set_pulled({NO_FOLDER: {"model": {"id": "auto", "device": "auto", "offline": False}}})
    assert layers.effective(NO_FOLDER).model.id == "mine"
    layers.set_pulled({NO_FOLDER: {"model": {"id": "mine"}}})
    assert layers.effective(NO_FOLDER).model.id == "mine"
    assert errors == []


def test_empty_lua_table_sets_nothing() -> None:
    layers, errors = make_layers()
    layers.set_initial({"userSettings": [], "completion": [], "enable": [], "model": []})
    layers.set_pulled({NO_FOLDER: [], "/a": {"c2l": [], "adapter": [], "files": {"exclude": []}}})
    assert layers.effective(NO_FOLDER) == layers.effective("/a") == layers.effective("/b")
    assert layers.effective("/a").enabled_for("python")
    layers.set_pulled({NO_FOLDER: {"completion": {"candidates": []}}})
    layers.effective(NO_FOLDER)
    assert len(errors) == 1, errors


def test_user_settings_of_the_editor_may_set_the_model() -> None:
    layers, errors = make_layers('[model]\nid = "mine"\n')
    layers.set_initial(
        {"userSettings": {"model": {"id": "theirs"}}, "trusted": False, "clientCommands": ["c2l.toggle"]}
    )
    assert layers.effective(NO_FOLDER).model.id == "theirs"
    assert layers.trusted is False
    assert errors == []


def test_malformed_user_file_is_reported_and_defaults_apply() -> None:
    layers, errors = make_layers("completion = [")
    layers.set_initial("not even a map")
    assert layers.effective(NO_FOLDER).completion.debounce_ms == 75
    assert len(errors) == 1


def test_workspace_can_exclude_more_files_but_not_include_more() -> None:
    layers, errors = make_layers('[files]\nexclude = ["private/"]\nmaxSizeKb = 100\n[adapter]\nmaxIndexKb = 64\n')
    loose = {"respectGitignore": False, "exclude": ["!private/", "vendor/"], "maxSizeKb": 65536, "ignoreFile": "x"}
    layers.set_pulled({NO_FOLDER: {"files": loose, "adapter": {"maxIndexKb": 1048576}}})
    settings = layers.effective(NO_FOLDER)
    assert settings.files.exclude == ["!private/", "vendor/", "private/"]
    assert (settings.files.respect_gitignore, settings.files.ignore_file) == (True, ".c2lignore")
    assert (settings.files.max_size_kb, settings.adapter.max_index_kb) == (100, 64)
    keys = ["respectGitignore", "maxSizeKb", "ignoreFile"]
    assert [error.split()[0] for error in errors] == [*(f"c2l.files.{key}" for key in keys), "c2l.adapter.maxIndexKb"]
    layers.set_pulled({NO_FOLDER: {"files": {"maxSizeKb": 10}, "adapter.maxIndexKb": 16}})
    assert (layers.effective(NO_FOLDER).files.max_size_kb, layers.effective(NO_FOLDER).adapter.max_index_kb) == (10, 16)
    assert len(errors) == 4
    layers.set_pulled({NO_FOLDER: {"files": {"maxSizeKb": 512, "exclude": []}, "adapter": {"maxIndexKb": 8192}}})
    assert layers.effective(NO_FOLDER).files.max_size_kb == 100, "an editor that echoes every default"
    assert len(errors) == 4


def test_user_may_include_more_files() -> None:
    layers, errors = make_layers("[files]\nrespectGitignore = false\n")
    layers.set_initial({"userSettings": {"files": {"maxSizeKb": 1000, "exclude": ["a/"]}}})
    files = layers.effective("/a").files
    assert (files.respect_gitignore, files.max_size_kb, files.exclude) == (False, 1000, ["a/"])
    assert errors == []
