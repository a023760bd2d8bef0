"""The state of the whole, out of the engine's life and events and the user's switches."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from c2l_lsp.engine import wire
from c2l_lsp.server.reporting.statistics import Statistics
from c2l_lsp.server.reporting.status import StatusBoard
from c2l_lsp.server.transport.engine_client import Life
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


def trouble(code: str = "git", severity: str = "warning") -> wire.Trouble:
    return wire.Trouble(folder="/w", code=code, severity=severity, message=f"No {code}.")


def states(sent: list) -> list[str]:
    return [params["state"] for method, params in sent if method == "c2l/didChangeStatus"]


async def test_a_whole_life(board: StatusBoard, sent: list) -> None:
    board.focus_on("/w")
    board.life(Life.STARTING, "", None)
    board.life(Life.LOADING, "", None)
    board.opening("/w")
    board.life(Life.READY, "", "c2l-nano")
    board.event(progress())
    board.event(progress(done=4, finished=True))
    assert board.state().value == "indexing"
    board.event(changed())
    board.event(progress("update"))
    board.event(progress("update", finished=True))
    board.life(Life.UNLOADED, "", None)
    board.life(Life.FAILED, "It died.", None)
    lived = ["starting", "loading", "indexing", "ready", "updating", "ready", "unloaded", "failed"]
    assert states(sent) == lived
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


async def test_a_new_generation_is_told(board: StatusBoard, sent: list) -> None:
    board.event(changed(7))
    method, params = sent[0]
    assert method == "c2l/adapter/didChange"
    assert (params["generation"], params["trigger"], params["changedFiles"]) == (7, "diff", 2)
    assert (params["paths"], params["moved"]) == (["a.py"], 0.5)


async def test_troubles_degrade_until_the_next_adapter(board: StatusBoard, sent: list) -> None:
    board.life(Life.READY, "", "m")
    board.opening("/w")
    board.event(trouble())
    assert board.state().value == "degraded"
    assert sent[-1][1]["kind"] == "Warning"
    assert sent[-1][1]["message"] == "No git."
    board.event(trouble("storage"))
    board.event(changed())
    assert board.snapshot().message == "No storage."
    board.life(Life.RESTARTING, "It died.", None)
    board.life(Life.READY, "", "m")
    board.event(trouble("nothing-to-learn", "info"))
    assert board.state().value == "ready"


async def test_off_and_snoozed(board: StatusBoard, sent: list) -> None:
    board.life(Life.READY, "", "m")
    board.switch(Reason.SNOOZED)
    assert (sent[-1][1]["state"], sent[-1][1]["kind"], sent[-1][1]["disabledReason"]) == (
        "disabled", "Inactive", "snoozed",
    )  # fmt: skip
    board.switch(None)
    assert sent[-1][1]["state"] == "ready"


async def test_what_did_not_change_is_not_sent(board: StatusBoard, sent: list) -> None:
    for _ in range(5):
        board.life(Life.READY, "", "m")
    board.focus_on("")
    assert len(sent) == 1


async def test_counts_that_run_up_are_not_a_flood(board: StatusBoard, sent: list) -> None:
    board.life(Life.READY, "", "m")
    board.opening("/w")
    sent.clear()
    for done in range(1000):
        board.event(progress(done=done))
    assert len(sent) <= 2
    await asyncio.sleep(0.3)
    assert sent[-1][1]["message"].startswith("index: 999 of 4")
    board.close()


async def test_a_closed_folder_is_forgotten(board: StatusBoard) -> None:
    board.life(Life.READY, "", "m")
    board.event(changed())
    board.opening("/w")
    board.event(trouble("storage"))
    board.forget("/w")
    assert board.state().value == "ready"
    assert board.snapshot("/w").adapter is None


async def test_a_trouble_that_is_over_is_taken_back(board: StatusBoard) -> None:
    board.life(Life.READY, "", "m")
    trouble = {"folder": "/w", "code": "storage", "message": "No space."}
    board.event(wire.Trouble(severity="warning", **trouble))
    assert board.state() is State.DEGRADED
    board.event(wire.Trouble(severity="info", **{**trouble, "code": "git"}))
    assert board.state() is State.DEGRADED
    board.event(wire.Trouble(severity="info", **trouble))
    assert board.state() is State.READY
