"""The Neovim plugin agrees with the server on names, payloads, settings and help. Needs no Neovim."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from c2l_lsp.server.transport import protocol
from docs import settings_table

PLUGIN = Path(__file__).resolve().parents[3] / "editors" / "neovim"
LUA = sorted(PLUGIN.rglob("*.lua"))
HELP = PLUGIN / "doc" / "c2l.txt"


def _generate():
    spec = importlib.util.spec_from_file_location("neovim_generate", PLUGIN / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATE = _generate()


@pytest.mark.parametrize("path", GENERATE.FILES, ids=lambda path: path.name)
def test_generated_text_is_up_to_date(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == GENERATE.FILES[path](), "run: python editors/neovim/generate.py"


def test_protocol_lua_has_every_name_of_the_contract() -> None:
    text = GENERATE.protocol_lua()
    names = [one.value for kind in (protocol.Command, protocol.Method, protocol.State, protocol.Reason) for one in kind]
    for name in [*names, *protocol.CLIENT_COMMANDS, protocol.DID_CHANGE_STATUS, protocol.ADAPTER_DID_CHANGE]:
        assert f"'{name}'" in text


def test_changed_contract_makes_protocol_lua_outdated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "ADAPTER_DID_CHANGE", "c2l/adapter/changed")
    path = next(path for path in GENERATE.FILES if path.name == "protocol.lua")
    assert path.read_text(encoding="utf-8") != GENERATE.FILES[path]()


def test_plugin_takes_contract_names_from_protocol_lua_only() -> None:
    commands = "|".join(one.value.removeprefix("c2l.") for one in protocol.Command)
    for path in LUA:
        if path.name not in ("protocol.lua", "settings.lua"):
            code = re.sub(r"--.*", "", path.read_text(encoding="utf-8"))
            assert not re.search(rf"""["']c2l(/\w|\.({commands})["'])""", code), path


def test_help_lists_every_setting() -> None:
    text = HELP.read_text(encoding="utf-8")
    for row in settings_table.describe():
        assert row["key"].removeprefix("c2l.") in text


def test_help_tags_are_unique_and_references_resolve() -> None:
    text = HELP.read_text(encoding="utf-8")
    tags = re.findall(r"(?<!\S)\*([^*\s]+)\*(?!\S)", text)
    assert len(tags) == len(set(tags))
    ours = [name for name in re.findall(r"\|([^|\s]+)\|", text) if "c2l" in name.lower()]
    assert ours
    assert not [name for name in ours if name not in tags]


def test_help_has_every_function_key_and_subcommand() -> None:
    text = HELP.read_text(encoding="utf-8")
    api = re.findall(r"^function M\.(\w+)", (PLUGIN / "lua/c2l/init.lua").read_text(encoding="utf-8"), re.M)
    assert len(api) > 12
    for name in api:
        assert f"*c2l.{name}()*" in text, name
    commands = (PLUGIN / "lua/c2l/command.lua").read_text(encoding="utf-8")
    table = commands[commands.index("M.subs = {") :]
    subs = re.findall(r"^  (\w+) = \{", table, re.M)
    assert len(subs) > 12
    for name in subs:
        assert f"*:C2L-{name}*" in text, name
    for action in ("accept", "accept-word", "accept-line", "next", "prev", "dismiss", "trigger", "toggle"):
        assert f"*<Plug>(c2l-{action})*" in text


def test_help_lines_have_at_most_80_columns() -> None:
    assert not [line for line in HELP.read_text(encoding="utf-8").splitlines() if len(line) > 80]
