"""The engine client against the fake engine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from c2l_lab.clients.engine import EngineProcess

from c2l_lsp.config import Settings
from c2l_lsp.engine import wire
from c2l_lsp.errors import EngineError

FAKE = (sys.executable, str(Path(__file__).parents[2] / "support" / "fake_engine.py"))


def slow_completion() -> wire.Complete:
    return wire.Complete(folder="", path="a.py", language="python", prefix="SLOW:2", suffix="")


def test_calls_return_results_and_events_are_collected(tmp_path: Path):
    with EngineProcess({}, FAKE) as engine:
        assert engine.hello(Settings()).device == "cpu"
        assert engine.memory > 10**6
        engine.call("ping", wire.Nothing(), wire.Nothing)
        engine.open_folder(tmp_path, Settings())
        engine.until(lambda: engine.named("adapter_changed"), 10)
        assert engine.named("adapter_changed", since=len(engine.events)) == []
    assert engine.process.returncode == 0


def test_a_call_without_an_answer_is_an_error():
    with EngineProcess({}, FAKE) as engine:
        with pytest.raises(EngineError, match="did not answer complete: no reply to request 1 within"):
            engine.call("complete", slow_completion(), wire.Completion, 0.2)
        engine.kill()
        with pytest.raises(EngineError, match="did not answer ping"):
            engine.call("ping", wire.Nothing(), wire.Nothing)


def test_an_error_of_the_engine_is_raised_with_its_message():
    with (
        EngineProcess({"FAKE_START": "error"}, FAKE) as engine,
        pytest.raises(EngineError, match="The model auto cannot be found"),
    ):
        engine.hello(Settings())
