"""The status, from the engine's state and events and from the user's switches."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from c2l_lsp.engine import wire
from c2l_lsp.server.reporting.statistics import Statistics
from c2l_lsp.server.reporting.status import StatusBoard
from c2l_lsp.server.transport.engine_client import EngineState
from c2l_lsp.server.transport.protocol import Reason, State


@pytest.fixture
def sent() -> list[tuple[str, dict]]:
    return []


@pytest.fixture
def board(sent: list, tmp_path: Path) -> StatusBoard:
    return StatusBoard(lambda method, params: sent.append((method, params)), Statistics(tmp_path / "s.json"))


def info(folder: str = "/w", generation: int = 1) -> wire.AdapterInfo:
    return wire.AdapterInfo(
        folder=folder, generation=generation, kind="memory", enabled=True, files=3, chunks=9, pending_files=2,
        norm=1.0, scale=1.0, updated_at=12.5, state="ready",
    )  # fmt: skip


def progress(task: str = "index", done: int = 1, *, finished: bool = False) -> wire.Progress:
    return wire.Progress(folder="/w", task=task, done=done, total=4, unit="chunks", finished=finished)


def changed(generation: int = 1) -> wire.AdapterChanged:
    return wire.AdapterChanged(
        info=info(generation=generation), trigger="diff", changed_files=2, ms={"read": 1.0}, paths=["a.py"], moved=0.5
    )


def warning(code: str = "git", severity: str = "warning") -> wire.Trouble:
    return wire.Trouble(folder="/w", code=code, severity=severity, message=f"No {code}.")


def states(sent: list) -> list[str]:
    return [params["state"] for method, params in sent if method == "c2l/didChangeStatus"]


async def test_states_from_start_to_failure(board: StatusBoard, sent: list) -> None:
    board.set_active_folder("/w")
    board.set_engine_state(EngineState.STARTING, "", None)
    board.set_engine_state(EngineState.LOADING, "", None)
    board.indexing_started("/w")
    board.set_engine_state(EngineState.READY, "", "c2l-nano")
    board.handle_event(progress())
    board.handle_event(progress(done=4, finished=True))
    assert board.state().value == "indexing"
    board.handle_event(changed())
    board.handle_event(progress("update"))
    board.handle_event(progress("update", finished=True))
    board.set_engine_state(EngineState.UNLOADED, "", None)
    board.set_engine_state(EngineState.FAILED, "It died.", None)
    expected = ["starting", "loading", "indexing", "ready", "updating", "ready", "unloaded", "failed"]
    assert states(sent) == expected
    last = sent[-1][1]
    assert (last["kind"], last["busy"], last["message"], last["disabledReason"]) == (
        "Error",
        False,
        "It died.",
        "failed",
    )
    ready = next(p for m, p in sent if m == "c2l/didChangeStatus" and p["state"] == "ready" and p["adapter"])
    assert ready["model"] == "c2l-nano"
    assert ready["adapter"]["generation"] == 1
    assert ready["adapter"]["pendingFiles"] == 2
    assert ready["adapter"]["updatedAt"] == 12.5
    assert "disabledReason" not in ready


async def test_new_generation_is_sent(board: StatusBoard, sent: list) -> None:
    board.handle_event(changed(7))
    method, params = sent[0]
    assert method == "c2l/adapter/didChange"
    assert (params["generation"], params["trigger"], params["changedFiles"]) == (7, "diff", 2)
    assert (params["paths"], params["moved"]) == (["a.py"], 0.5)


async def test_warnings_degrade_the_status_until_the_next_adapter(board: StatusBoard, sent: list) -> None:
    board.set_engine_state(EngineState.READY, "", "m")
    board.indexing_started("/w")
    board.handle_event(warning())
    assert board.state().value == "degraded"
    assert sent[-1][1]["kind"] == "Warning"
    assert sent[-1][1]["message"] == "No git."
    board.handle_event(warning("storage"))
    board.handle_event(changed())
    assert board.snapshot().message == "No storage."
    board.set_engine_state(EngineState.RESTARTING, "It died.", None)
    board.set_engine_state(EngineState.READY, "", "m")
    board.handle_event(warning("nothing-to-learn", "info"))
    assert board.state().value == "ready"


async def test_snoozed_status(board: StatusBoard, sent: list) -> None:
    board.set_engine_state(EngineState.READY, "", "m")
    board.set_disabled(Reason.SNOOZED)
    assert (sent[-1][1]["state"], sent[-1][1]["kind"], sent[-1][1]["disabledReason"]) == (
        "disabled", "Inactive", "snoozed",
    )  # fmt: skip
    board.set_disabled(None)
    assert sent[-1][1]["state"] == "ready"


async def test_unchanged_status_is_not_sent(board: StatusBoard, sent: list) -> None:
    for _ in range(5):
        board.set_engine_state(EngineState.READY, "", "m")
    board.set_active_folder("")
    assert len(sent) == 1


async def test_progress_is_sent_at_a_limited_rate(board: StatusBoard, sent: list) -> None:
    board.set_engine_state(EngineState.READY, "", "m")
    board.indexing_started("/w")
    sent.clear()
    for done in range(1000):
        board.handle_event(progress(done=done))
    assert len(sent) <= 2
    await asyncio.sleep(0.3)
    assert sent[-1][1]["message"].startswith("Computing neural keys: 999 of 4")
    board.close()


async def test_closed_folder_is_removed(board: StatusBoard) -> None:
    board.set_engine_state(EngineState.READY, "", "m")
    board.handle_event(changed())
    board.indexing_started("/w")
    board.handle_event(warning("storage"))
    board.remove_folder("/w")
    assert board.state().value == "ready"
    assert board.snapshot("/w").adapter is None


async def test_info_withdraws_the_warning_with_its_code(board: StatusBoard) -> None:
    board.set_engine_state(EngineState.READY, "", "m")
    storage = {"folder": "/w", "code": "storage", "message": "No space."}
    board.handle_event(wire.Trouble(severity="warning", **storage))
    assert board.state() is State.DEGRADED
    board.handle_event(wire.Trouble(severity="info", **{**storage, "code": "git"}))
    assert board.state() is State.DEGRADED
    board.handle_event(wire.Trouble(severity="info", **storage))
    assert board.state() is State.READY
