"""Layers of settings: order, what a workspace must not set, errors named once."""

from __future__ import annotations

import os
from pathlib import Path

from c2l_lsp.server.workspace.settings import EVERYWHERE, SettingsLayers


def layers(user: str = "") -> tuple[SettingsLayers, list[str]]:
    Path(os.environ["C2L_CONFIG"]).write_text(user, encoding="utf-8")
    errors: list[str] = []
    return SettingsLayers(lambda error: errors.append(str(error))), errors


def test_later_sources_win() -> None:
    made, errors = layers("[completion]\ndebounceMs = 1\ncandidates = 1\nmaxNewTokens = 1\n")
    made.set_initial({"completion": {"debounceMs": 2, "candidates": 2}})
    made.set_pulled({EVERYWHERE: {"completion": {"debounceMs": 3}}, "/a": {"completion.debounceMs": 4}})
    assert errors == []
    outside, inside = made.of(EVERYWHERE).completion, made.of("/a").completion
    assert (outside.debounce_ms, outside.candidates, outside.max_new_tokens) == (3, 2, 1)
    assert inside.debounce_ms == 4
    assert made.of("/unknown").completion.debounce_ms == 3


def test_a_wrong_key_is_named_once_and_the_rest_works() -> None:
    made, errors = layers()
    for _ in range(3):
        made.set_pulled({EVERYWHERE: {"completion": {"debounceMs": "soon", "candidates": 5, "colour": "red"}}})
        assert made.of(EVERYWHERE).completion.candidates == 5
        made.of("/a")
    assert len(errors) == 2
    assert "c2l.completion.debounceMs" in errors[0]
    assert "c2l.completion.colour" in errors[1]


def test_a_workspace_cannot_choose_model_server_or_remote() -> None:
    made, errors = layers()
    hostile = {"model": {"path": "/evil"}, "remote": {"url": "https://evil"}, "server.path": "/evil"}
    made.set_initial(hostile)
    made.set_pulled({EVERYWHERE: {"c2l": hostile}})
    settings = made.of(EVERYWHERE)
    assert (settings.model.path, settings.remote.url, settings.server.path) == ("", "", "")
    assert len(errors) == 6
    assert all("only user settings may set it" in error for error in errors)


def test_an_editor_that_echoes_every_default_is_no_offender() -> None:
    made, errors = layers('[model]\nid = "mine"\n')
    made.set_pulled({EVERYWHERE: {"model": {"id": "auto", "device": "auto", "offline": False}}})
    assert made.of(EVERYWHERE).model.id == "mine"
    made.set_pulled({EVERYWHERE: {"model": {"id": "mine"}}})
    assert made.of(EVERYWHERE).model.id == "mine"
    assert errors == []


def test_an_empty_table_of_lua_sets_nothing() -> None:
    made, errors = layers()
    made.set_initial({"userSettings": [], "completion": [], "enable": [], "model": []})
    made.set_pulled({EVERYWHERE: [], "/a": {"c2l": [], "adapter": [], "files": {"exclude": []}}})
    assert made.of(EVERYWHERE) == made.of("/a") == made.of("/b")
    assert made.of("/a").enabled_for("python")
    made.set_pulled({EVERYWHERE: {"completion": {"candidates": []}}})
    made.of(EVERYWHERE)
    assert len(errors) == 1, errors


def test_the_editors_user_settings_may_choose_the_model() -> None:
    made, errors = layers('[model]\nid = "mine"\n')
    made.set_initial({"userSettings": {"model": {"id": "theirs"}}, "trusted": False, "clientCommands": ["c2l.toggle"]})
    assert made.of(EVERYWHERE).model.id == "theirs"
    assert made.trusted is False
    assert errors == []


def test_a_user_file_that_is_no_toml_is_an_error_and_no_end() -> None:
    made, errors = layers("completion = [")
    made.set_initial("not even a map")
    assert made.of(EVERYWHERE).completion.debounce_ms == 75
    assert len(errors) == 1


def test_a_workspace_can_leave_more_out_and_let_nothing_in() -> None:
    made, errors = layers('[files]\nexclude = ["private/"]\nmaxSizeKb = 100\n[adapter]\nmaxIndexKb = 64\n')
    loose = {"respectGitignore": False, "exclude": ["!private/", "vendor/"], "maxSizeKb": 65536, "ignoreFile": "x"}
    made.set_pulled({EVERYWHERE: {"files": loose, "adapter": {"maxIndexKb": 1048576}}})
    settings = made.of(EVERYWHERE)
    assert settings.files.exclude == ["!private/", "vendor/", "private/"]
    assert (settings.files.respect_gitignore, settings.files.ignore_file) == (True, ".c2lignore")
    assert (settings.files.max_size_kb, settings.adapter.max_index_kb) == (100, 64)
    keys = ["respectGitignore", "maxSizeKb", "ignoreFile"]
    assert [error.split()[0] for error in errors] == [*(f"c2l.files.{key}" for key in keys), "c2l.adapter.maxIndexKb"]
    made.set_pulled({EVERYWHERE: {"files": {"maxSizeKb": 10}, "adapter.maxIndexKb": 16}})
    assert (made.of(EVERYWHERE).files.max_size_kb, made.of(EVERYWHERE).adapter.max_index_kb) == (10, 16)
    assert len(errors) == 4
    made.set_pulled({EVERYWHERE: {"files": {"maxSizeKb": 512, "exclude": []}, "adapter": {"maxIndexKb": 256}}})
    assert made.of(EVERYWHERE).files.max_size_kb == 100, "an editor that echoes every default"
    assert len(errors) == 4


def test_the_user_may_let_more_be_read() -> None:
    made, errors = layers("[files]\nrespectGitignore = false\n")
    made.set_initial({"userSettings": {"files": {"maxSizeKb": 1000, "exclude": ["a/"]}}})
    files = made.of("/a").files
    assert (files.respect_gitignore, files.max_size_kb, files.exclude) == (False, 1000, ["a/"])
    assert errors == []
