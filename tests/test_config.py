"""Settings: validation, precedence and scopes. Every error names its key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from c2l_lsp import config
from c2l_lsp.config import Settings, load_user, merge
from c2l_lsp.errors import Severity
from docs.settings_table import describe


def test_defaults():
    settings = Settings()
    assert settings.enable == {"*": True, "plaintext": False}
    assert (settings.completion.debounce_ms, settings.completion.max_latency_ms) == (75, 300)
    assert settings.model.id == "auto"
    assert settings.remote.url == ""
    assert settings.enabled_for("python")
    assert not settings.enabled_for("plaintext")


@pytest.mark.parametrize(
    ("values", "key", "reason"),
    [
        ({"completion": {"debounce": 5}}, "c2l.completion.debounce", "is not a setting."),
        ({"colour": "blue"}, "c2l.colour", "is not a setting."),
        ({"colour": {}}, "c2l.colour", "is not a setting."),
        ({"completion": {"debounceMs": "75"}}, "c2l.completion.debounceMs", "Expected `int`"),
        ({"completion": {"debounceMs": 7.5}}, "c2l.completion.debounceMs", "Expected `int`"),
        ({"completion": {"debounceMs": True}}, "c2l.completion.debounceMs", "Expected `int`"),
        ({"completion": {"debounceMs": -1}}, "c2l.completion.debounceMs", ">= 0"),
        ({"completion": {"debounceMs": 5001}}, "c2l.completion.debounceMs", "<= 5000"),
        ({"completion": {"trigger": "always"}}, "c2l.completion.trigger", "Invalid enum value"),
        ({"completion": 5}, "c2l.completion", "Expected `object`"),
        ({"adapter": {"scale": 9.0}}, "c2l.adapter.scale", "<= 4"),
        ({"model": {"device": "tpu"}}, "c2l.model.device", "regex"),
        ({"enable": {"python": "yes"}}, "c2l.enable", "Expected `bool`"),
        ({"enable": False}, "c2l.enable", "Expected `object`"),
        ({"files": {"exclude": ["a", 1]}}, "c2l.files.exclude", "Expected `str`"),
        ({"c2l": 5}, "c2l.c2l", "is not a setting."),
    ],
)
def test_invalid_key_is_reported_and_the_others_apply(values: dict[str, Any], key: str, reason: str):
    good = {"context": {"maxTokens": 512}}
    settings, errors = merge(Settings(), {**values, **good}, source="a test", machine=True)
    assert len(errors) == 1
    sentence = str(errors[0])
    assert sentence.startswith(f"{key} in a test ")
    assert reason in sentence
    assert errors[0].severity is Severity.WARNING
    assert settings == msgspec.structs.replace(Settings(), context=config.Context(max_tokens=512))


def test_all_invalid_keys_are_reported():
    _, errors = merge(Settings(), {"a": 1, "completion": {"b": 2, "minChars": -1}}, source="x", machine=True)
    assert [str(error).split(" ")[0] for error in errors] == ["c2l.a", "c2l.completion.b", "c2l.completion.minChars"]


@pytest.mark.parametrize("group", sorted(config.MACHINE_ONLY))
def test_workspace_cannot_set_machine_settings(group: str):
    key, value = {
        "model": ("id", "x/y"),
        "server": ("path", "/bin/sh"),
        "remote": ("url", "https://x"),
        "trace": ("server", "verbose"),
    }[group]
    settings, errors = merge(Settings(), {group: {key: value}}, source="the workspace", machine=False)
    assert settings == Settings()
    assert f"c2l.{group}.{key}" in str(errors[0])
    assert "only user settings may set it" in str(errors[0])
    settings, errors = merge(Settings(), {group: {key: value}}, source="the user's file", machine=True)
    assert settings != Settings()
    assert not errors


# (user's value, workspace's value, effective value) of every setting that a workspace can only make stricter.
STRICTER: dict[str, list[tuple[Any, Any, Any]]] = {
    "adapter.enable": [(False, True, False), (True, False, False)],
    "adapter.hypernetwork": [("none", "evo", "none"), ("memory", "none", "none"), ("memory", "static", "static")],
    "adapter.includeUnsaved": [(False, True, False), (True, False, False)],
    "adapter.useGitHistory": [(False, True, False), (True, False, False)],
    "adapter.historyCommits": [(10, 20, 10), (10, 5, 5)],
    "adapter.maxIndexKb": [(100, 1000, 100), (100, 50, 50)],
    "followUp.enable": [(False, True, False), (True, False, False)],
    "files.exclude": [(["a"], [], ["a"]), (["!a"], ["b"], ["b", "!a"])],
    "files.respectGitignore": [(True, False, True), (False, True, True)],
    "files.ignoreFile": [(".mine", ".theirs", ".mine")],
    "files.maxSizeKb": [(100, 1000, 100), (100, 50, 50)],
    "files.languages": [
        (["python"], ["python", "yaml"], ["python"]),
        (["python", "go"], ["go"], ["go"]),
        (["go"], [], []),
    ],
    "statistics.enable": [(False, True, False), (True, False, False)],
}


def test_every_setting_declares_its_rule_for_workspaces():
    assert set(config.WORKSPACE_RULES) == {key.removeprefix("c2l.") for key, _ in _leaves(Settings)}
    assert set(config.RESTRICTIONS) == set(STRICTER)
    for group in config.MACHINE_ONLY:
        rules = [rule for key, rule in config.WORKSPACE_RULES.items() if key.startswith(f"{group}.")]
        assert all(rule is config.USER_ONLY for rule in rules), f"{group} is a user's group in part only"


@pytest.mark.parametrize("row", describe(), ids=lambda row: row["key"])
def test_workspace_can_change_a_setting_as_its_rule_says(row: dict[str, Any]):
    key = row["key"].removeprefix("c2l.")
    rule = config.WORKSPACE_RULES[key]
    if rule.note:
        cases = STRICTER[key]
        assert row["description"].endswith(rule.note)
    else:
        other = _other_value(row)
        effective = {**row["default"], **other} if isinstance(other, dict) else other
        cases = [(row["default"], other, row["default"] if rule is config.USER_ONLY else effective)]
    for user, workspace, effective in cases:
        settings, errors = merge(Settings(), {key: user}, source="the user", machine=True)
        assert not errors
        settings, errors = merge(settings, {key: workspace}, source="the workspace", machine=False)
        assert _value(settings, key) == effective
        if isinstance(workspace, list | dict):
            granted = all(one in effective for one in workspace)
        else:
            granted = workspace == effective
        refused = not granted and workspace != row["default"]  # some editors send every default
        assert [f"c2l.{key} in the workspace is ignored" in str(error) for error in errors] == [True] * refused


def _other_value(row: dict[str, Any]) -> Any:
    """A valid value of a setting that differs from its default."""
    if "enum" in row:
        return next(value for value in row["enum"] if value != row["default"])
    if row["type"] in ("integer", "number"):
        return row["minimum"] if row["minimum"] != row["default"] else row["maximum"]
    if row["type"] == "boolean":
        return not row["default"]
    return {"string": "cpu", "array": ["--x"], "object": {"lua": False}}[row["type"]]


def _value(settings: Settings, key: str) -> Any:
    values: Any = msgspec.to_builtins(settings)
    for part in key.split("."):
        values = values[part]
    return values


@pytest.mark.parametrize(
    "values",
    [
        {"completion": {"debounceMs": 10}},
        {"completion.debounceMs": 10},
        {"c2l.completion.debounceMs": 10},
        {"c2l": {"completion": {"debounceMs": 10}}},
        {"c2l": {"completion.debounceMs": 10}},
    ],
)
def test_nested_and_dotted_keys_are_equivalent(values: dict[str, Any]):
    settings, errors = merge(Settings(), values, source="x", machine=False)
    assert not errors
    assert settings.completion == config.Completion(debounce_ms=10)


def test_unknown_language_gets_a_sentence_and_the_others_stay():
    values = {"files": {"languages": ["python", "Pyton", "qqq"]}}
    settings, errors = merge(Settings(), values, source="x", machine=True)
    assert settings.files.languages == ["python", "Pyton", "qqq"]
    pyton, qqq = map(str, errors)
    assert pyton == (
        "c2l.files.languages in x: 'Pyton' is not a known language, so no file of it is indexed; did you mean python?"
    )
    assert qqq.startswith("c2l.files.languages in x: 'qqq' is not a known language")
    assert "typescript" in qqq
    restricted, errors = merge(settings, {"files": {"languages": ["python", "qqq2"]}}, source="y", machine=False)
    assert restricted.files.languages == ["python"]
    assert len(errors) == 1, "what a workspace may not add is reported as that alone"


def test_languages_are_merged():
    once, _ = merge(Settings(), {"enable": {"python": False}}, source="x", machine=False)
    twice, errors = merge(once, {"enable.markdown": False}, source="y", machine=False)
    assert not errors
    assert twice.enable == {"*": True, "plaintext": False, "python": False, "markdown": False}


def test_none_means_unset():
    settings, errors = merge(Settings(), {"completion": {"debounceMs": None}, "model": None}, source="x", machine=False)
    assert settings == Settings()
    assert not errors


def test_later_sources_take_precedence():
    first, _ = merge(Settings(), {"adapter": {"scale": 0.5}, "context.maxTokens": 99}, source="user", machine=True)
    second, _ = merge(first, {"adapter": {"scale": 2.0}}, source="workspace", machine=False)
    assert (second.adapter.scale, second.context.max_tokens) == (2.0, 99)


def test_no_user_file_means_defaults(tmp_path: Path):
    assert load_user(tmp_path / "none.toml") == (Settings(), [])


def test_user_file_may_set_machine_settings(tmp_path: Path):
    file = tmp_path / "config.toml"
    file.write_text('[model]\nid = "Qwen/Qwen2.5-Coder-0.5B"\n[enable]\nlua = false\n', encoding="utf-8")
    settings, errors = load_user(file)
    assert not errors
    assert settings.model.id == "Qwen/Qwen2.5-Coder-0.5B"
    assert not settings.enabled_for("lua")


@pytest.mark.parametrize("content", [b"[model\nid = 1", b"\xff\xfe", b"a = 1\na = 2"])
def test_malformed_user_file_is_reported_and_defaults_apply(tmp_path: Path, content: bytes):
    file = tmp_path / "config.toml"
    file.write_bytes(content)
    settings, errors = load_user(file)
    assert settings == Settings()
    assert str(file) in str(errors[0])
    assert "the defaults are used" in str(errors[0])


def test_user_file_that_is_a_folder_is_reported(tmp_path: Path):
    settings, errors = load_user(tmp_path)
    assert settings == Settings()
    assert str(tmp_path) in str(errors[0])


def test_environment_overrides_the_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("C2L_CONFIG", str(tmp_path / "a.toml"))
    monkeypatch.setenv("C2L_STATE_DIR", str(tmp_path / "state"))
    assert config.user_file() == tmp_path / "a.toml"
    assert config.state_root() == tmp_path / "state"
    monkeypatch.delenv("C2L_CONFIG")
    monkeypatch.delenv("C2L_STATE_DIR")
    assert config.user_file().name == "config.toml"
    assert config.state_root().name == "c2l_lsp"


def _leaves(kind: type[msgspec.Struct], prefix: str = "c2l.") -> Iterator[tuple[str, object]]:
    for field in msgspec.structs.fields(kind):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from _leaves(field.type, f"{prefix}{field.encode_name}.")
        else:
            default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
            yield f"{prefix}{field.encode_name}", default


def test_description_covers_every_setting_with_its_default():
    rows = {row["key"]: row for row in describe()}
    assert {key: rows[key]["default"] for key in rows} == dict(_leaves(Settings))
    for key, row in rows.items():
        assert row["description"].endswith("."), key
        assert "type" in row or "enum" in row, key
        assert row["scope"] == ("machine" if key.split(".")[1] in config.MACHINE_ONLY else "resource")


def test_every_default_is_valid():
    values = {row["key"]: row["default"] for row in describe()}
    assert merge(Settings(), values, source="its own description", machine=True) == (Settings(), [])
