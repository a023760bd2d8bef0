"""Unexpected errors: one folder or one request fails with a code location, and no message contains source text."""

from __future__ import annotations

import io
import json
import os
import shutil
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from c2l_lsp.config import state_root
from c2l_lsp.engine import wire
from c2l_lsp.engine.adaptation import workspace_adapter
from c2l_lsp.engine.session import Session
from c2l_lsp.engine.storage import disk
from c2l_lsp.engine.storage.store import folder_key
from c2l_lsp.engine.worker import Worker
from tests.support.engine_loop import run_until

CANARY = "zq_source_line_canary = 'text of a file'"
UNEXPECTED = [KeyError(CANARY), ValueError(CANARY), OSError(5, CANARY), AssertionError(CANARY), RuntimeError(CANARY)]


def workspace(session: Session, folder: Path) -> workspace_adapter.WorkspaceAdapter:
    return session.engine.workspace(str(folder.resolve()))


def troubles(session: Session) -> list[wire.Trouble]:
    return [event for event in session.events if isinstance(event, wire.Trouble)]


def raising(error: Exception):
    def call(*_: object, **__: object):
        raise error

    return call


@pytest.fixture
def other(folder: Path) -> Path:
    """A second folder, without errors."""
    made = folder.with_name("other")
    shutil.copytree(folder, made)
    return made


@pytest.mark.parametrize(
    ("where", "error"),
    [
        *(("embed_in_slices", error) for error in UNEXPECTED),
        *((w, UNEXPECTED[0]) for w in ("update_in_slices", "generate", "chunks")),
    ],
)
def test_an_error_in_one_folder_is_reported_and_does_not_affect_another(
    session, folder, other, monkeypatch, where, error
):
    session.open(folder)
    session.open(other)
    one, sound = workspace(session, folder), workspace(session, other)
    monkeypatch.setattr(one._learner.network, where, raising(error))
    for root in (folder, other):
        (root / "pkg" / "m0.py").write_text("def changed():\n    return 3\n")
        workspace(session, root).regenerate()
    run_until(session, lambda: troubles(session) and sound.info().generation == 2)
    (warning,) = troubles(session)
    assert (warning.folder, warning.severity) == (str(folder.resolve()), "error")
    assert f"({type(error).__name__} at " in warning.message
    assert warning.message == one.info().message
    assert "canary" not in repr(session.events)
    assert one.live.adapter is not None or one.info().scale == 0  # the last adapter stays live
    monkeypatch.undo()
    one.regenerate()
    run_until(session, lambda: one.info().generation == 2)
    assert one.info().message == "" or "not used" in one.info().message


def test_an_error_in_a_batch_update_fails_one_folder_only(session, folder, other, monkeypatch):
    session.open(folder)
    session.open(other)
    one, sound = workspace(session, folder), workspace(session, other)
    sound._learner.network = one._learner.network  # as with a shipped prior, so that one call updates both
    real, bad = one._learner.network.update_in_slices, one._learner

    def update(states, changes):
        if any(state is bad.state for state in states):
            raise KeyError(CANARY)
        return real(states, changes)

    monkeypatch.setattr(one._learner.network, "update_in_slices", update)
    for root in (folder, other):
        (root / "pkg" / "m0.py").write_text("def changed():\n    return 3\n")
    run_until(session, lambda: troubles(session) and sound.info().generation == 2)
    assert {warning.folder for warning in troubles(session)} == {str(folder.resolve())}


def test_a_folder_whose_state_fails_in_an_unforeseen_way_is_learned_again(session, folder, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(workspace_adapter.WorkspaceAdapter, "_restore", raising(KeyError(CANARY)))
        info = session.open(folder)
    assert (info.state, info.files) == ("ready", 12)
    (warning,) = troubles(session)
    assert (warning.code, "damaged (KeyError at" in warning.message) == ("state", True)
    (folder / "pkg" / "m0.py").write_text("def watched():\n    return 3\n")
    run_until(session, lambda: workspace(session, folder).info().generation == 2)


def test_a_folder_that_cannot_be_opened_does_not_affect_another(session, folder, other, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(workspace_adapter.WorkspaceAdapter, "start", raising(KeyError(CANARY)))
        session.engine.open_folder(wire.OpenFolder(folder=str(folder.resolve()), settings=session.settings))
    assert "KeyError" in workspace(session, folder).info().message
    assert session.open(other).generation == 1


class FailingEngine:
    """A stand-in for the engine: adapter work and `status` fail."""

    def __init__(self) -> None:
        self.steps = 0

    def due_in(self) -> float:
        return 0.0

    def close(self) -> None: ...

    def idle_step(self) -> None:
        self.steps += 1
        raise KeyError(CANARY)

    def status(self) -> wire.Status:
        raise ValueError(CANARY)


def frames_of(out: bytes) -> list[wire.Frame]:
    stream, frames = io.BytesIO(out), []
    while (frame := wire.read(stream)) is not None:
        frames.append(frame)
    return frames


def test_a_failed_request_is_answered_and_the_process_goes_on(caplog):
    theirs, ours = os.pipe()
    back, out = os.pipe()
    with os.fdopen(theirs, "rb") as stdin, os.fdopen(out, "wb") as stdout, os.fdopen(ours, "wb") as send:
        worker, engine = Worker(stdin, stdout), FailingEngine()
        worker._engine = engine
        thread = threading.Thread(target=worker.run)
        thread.start()
        for number, method in enumerate(["status", "ping", "status", "status", "status", "ping", "shutdown"], 1):
            send.write(wire.pack(wire.Request(id=number, method=method, params={})))
        send.flush()
        thread.join(30)
    with os.fdopen(back, "rb") as reading:
        frames = frames_of(reading.read())
    replies = {frame.id: frame.error for frame in frames if isinstance(frame, wire.Reply)}
    assert [replies[number] is None for number in range(1, 8)] == [False, True, False, False, False, True, True]
    assert "The request status failed: ValueError at worker.py" in replies[1][1]
    assert worker._exit_code == 0
    assert engine.steps <= 2  # with a pause after each error
    assert "canary" not in repr(frames) + caplog.text


# --- saved state -----------------------------------------------------------------------------------------------------


def forge(folder: Path, file: str, change) -> None:
    """Change tensors of a saved state and correct the checksums."""
    root = state_root() / folder_key(folder)
    generation = root / (root / "CURRENT").read_text()
    tensors = load_file(generation / file)
    change(tensors)
    save_file(tensors, generation / file)
    manifest = json.loads((generation / "manifest.json").read_text())
    manifest["sums"][file] = disk.checksum((generation / file).read_bytes()).hex()
    (generation / "manifest.json").write_text(json.dumps(manifest))


def put(name: str, value):
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name] = value(tensors[name]) if callable(value) else value

    return change


DEEP = "deep/model.layers.1.mlp.down_proj"


def finetuned(**changes: torch.Tensor):
    def change(tensors: dict[str, torch.Tensor]) -> None:
        made = {"A": torch.zeros(4, 128), "B": torch.zeros(64, 4), "scale": torch.tensor(1.0, dtype=torch.float64)}
        for part, tensor in {**made, **changes}.items():
            tensors[f"{DEEP}/{part}"] = tensor
        tensors.setdefault("deep/recall", torch.tensor(1.0, dtype=torch.float64))

    return change


FORGED = {
    "a tensor is missing": ("state", lambda tensors: tensors.pop("F_e")),
    "a tensor too many": ("state", put("more", torch.zeros(2))),
    "another shape": ("state", put("S", lambda t: t[:-1].clone())),
    "another dtype": ("state", put("recent", lambda t: t.float())),
    "not finite": ("state", put("recent", lambda t: t * float("nan"))),
    "below zero": ("state", put("n", lambda t: -t)),
    "another number of tokens": ("state", put("n", lambda t: t + 1)),
    "a part of a token": ("state", put("n", lambda t: t + 0.5)),
    "keys, which are in the cache": ("state", put("keys", torch.zeros(3, 16, dtype=torch.int8))),
    "a prior that is not finite": ("extra", put("P", lambda t: t * float("inf"))),
    "deep pairs of another shape": ("extra", finetuned(A=torch.zeros(4, 127))),
    "deep pairs with one dimension": ("extra", finetuned(A=torch.zeros(4))),
    "deep pairs that are not finite": ("extra", finetuned(B=torch.full((64, 4), float("nan")))),
    "a negative strength of the memory": (
        "extra",
        lambda t: (t.update({"deep/recall": torch.tensor(-1.0)}), finetuned()(t)),
    ),
    "half a deep pair": ("extra", lambda t: (finetuned()(t), t.pop(f"{DEEP}/B"))),
    "deep pairs for nothing": ("extra", lambda t: (finetuned()(t), t.update({"deep/other": torch.zeros(1)}))),
}


def test_a_state_with_valid_checksums_and_wrong_tensors_is_set_aside_and_rebuilt(
    accept_every_adapter, settings, folder
):
    with Session(settings) as first:
        first.open(folder)
        expected = workspace(first, folder)._learner.state.tensors["S"]
    name, root = str(folder.resolve()), state_root() / folder_key(folder)
    sound = root.with_name("sound")
    shutil.copytree(root, sound)
    for case, (file, change) in FORGED.items():
        shutil.rmtree(root)
        shutil.copytree(sound, root)
        forge(folder, f"{file}.safetensors", change)
        with Session(settings) as second:
            second.engine.open_folder(wire.OpenFolder(folder=name, settings=settings))
            assert workspace(second, folder).live.adapter is None, case  # never used
            assert [(warning.code, warning.severity) for warning in troubles(second)] == [("state", "warning")], case
            assert "set aside" in troubles(second)[0].message
            assert list(root.glob("*.bad"))
            assert not workspace(second, folder).adapters.finetuned.pairs
    with Session(settings) as last:
        last.open(folder)
        assert workspace(last, folder).live.adapter is not None
        assert torch.allclose(workspace(last, folder)._learner.state.tensors["S"], expected)


def test_a_saved_prior_of_another_shape_is_estimated_again(accept_every_adapter, settings, folder):
    with Session(settings) as first:
        first.open(folder)
    forge(folder, "extra.safetensors", put("P", lambda tensor: tensor[:-1].clone()))
    with Session(settings) as second:
        assert second.open(folder).state == "ready"
        assert workspace(second, folder)._learner.prior_tensors["P"].shape == (64, 64)
        assert workspace(second, folder).live.adapter is not None
