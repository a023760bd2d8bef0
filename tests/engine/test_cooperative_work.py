"""Cooperative steps of the adapter work: they are short, and completions between them change nothing.

With the shipped model.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from c2l_lsp.config import Settings, merge
from c2l_lsp.cooperative import drain
from c2l_lsp.engine import wire
from c2l_lsp.engine.session import Session
from c2l_lsp.model.lm.llama import Layer
from c2l_lsp.model.runtime import int8_model, kernel
from c2l_lsp.model.runtime.kernel_layers import KernelSequence


@pytest.fixture(autouse=True)
def _one_thread():
    """Two threads on one busy core would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def shipped() -> Settings:
    values = {"model": {"device": "cpu"}, "adapter": {"updateDelayMs": 20, "maxDelayMs": 200}}
    made, errors = merge(Settings(), values, source="test", machine=True)
    assert not errors
    return made


@pytest.fixture
def project(tmp_path: Path, sources: list[str]) -> Path:
    """Five files, enough for validation."""
    for number, text in enumerate(sorted(sources, key=len)[30:35]):
        (tmp_path / f"m{number}.py").write_text(text, encoding="utf-8")
    return tmp_path.resolve()


def ask(session: Session, folder: Path) -> wire.Completion:
    text = "from __future__ import annotations\n\n\ndef read("
    place = {"folder": str(folder), "path": str(folder / "m0.py"), "language": "python"}
    asked = wire.Complete(**place, prefix=text, suffix="\n", max_latency_ms=60_000)
    return session.engine.complete(asked, lambda: False)


def steps(session: Session, folder: Path):
    """Run the engine's cooperative steps until no work is due soon; yields after each."""
    workspace = session.engine.workspace(str(folder))
    deadline = time.monotonic() + 120
    while (due := workspace.due_in(time.monotonic())) is not None and (due < 5.0 or workspace.pending):
        assert time.monotonic() < deadline
        if due > 0:
            time.sleep(min(due, 0.02))
            continue
        session.engine.idle_step()
        yield


def begin(settings: Settings, folder: Path) -> Session:
    session = Session(settings)
    session.engine.open_folder(wire.OpenFolder(folder=str(folder), settings=settings))
    return session


def test_a_step_runs_at_most_two_layers(shipped: Settings, project: Path, monkeypatch: pytest.MonkeyPatch):
    """One step may end a forward pass and start the next."""
    passed = [0]
    real = Layer.forward

    def counted(self, *args):
        passed[0] += 1
        return real(self, *args)

    monkeypatch.setattr(Layer, "forward", counted)
    monkeypatch.setattr(int8_model, "kernel_supports", lambda lm: False)
    with begin(shipped, project) as session:
        layers = len(session.engine.model.body.layers)
        most, passed[0] = 0, 0  # a model is tried once when it is loaded
        for _ in steps(session, project):
            most, passed[0] = max(most, passed[0]), 0
        assert session.engine.workspace(str(project)).live.adapter is not None
    assert 1 <= most <= 2 < layers


@pytest.mark.skipif(not kernel.is_available(), reason="the kernel was not built: no C compiler at installation")
def test_a_step_of_the_kernel_runs_at_most_two_portions(
    shipped: Settings, project: Path, monkeypatch: pytest.MonkeyPatch
):
    """As above, in tokens."""
    passed = [0]
    real = KernelSequence.__call__

    def counted(self, ids, *args):
        passed[0] += len(ids)
        return real(self, ids, *args)

    monkeypatch.setattr(int8_model, "int8_is_faster", lambda lm: lm.dtype == torch.float32)  # on other CPUs too
    with begin(shipped, project) as session:
        if session.engine.model.int8_model is None:
            pytest.skip("this CPU multiplies bf16")
        monkeypatch.setattr(KernelSequence, "__call__", counted)
        portion, most = session.engine.model.int8_model.layers.slice_tokens, 0
        for _ in steps(session, project):
            most, passed[0] = max(most, passed[0]), 0
        assert session.engine.workspace(str(project)).live.adapter is not None
    assert 1 <= most <= 2 * portion


def test_completions_and_adapter_work_do_not_affect_each_other(shipped, project, tmp_path_factory, monkeypatch):
    with begin(shipped, project) as alone:
        base = ask(alone, project).texts
        for _ in steps(alone, project):
            pass
        wanted = alone.engine.workspace(str(project)).live.adapter
        adapted = ask(alone, project).texts
    monkeypatch.setenv("C2L_STATE_DIR", str(tmp_path_factory.mktemp("another")))
    with begin(shipped, project) as busy:
        workspace = busy.engine.workspace(str(project))
        answers = []
        for number, _ in enumerate(steps(busy, project)):
            if number % 12 == 0:
                answers.append((workspace.live.adapter is not None, ask(busy, project).texts))
        assert workspace.live.adapter.digest == wanted.digest
    assert sum(not adapted for adapted, _ in answers) > 3
    assert all(texts == (adapted if live else base) for live, texts in answers)


def test_drain_returns_the_result_or_raises_the_error_of_a_generator():
    def work(fails: bool):
        yield
        if fails:
            raise KeyError("planted")
        return 7

    assert drain(work(False)) == 7
    with pytest.raises(KeyError, match="planted"):
        drain(work(True))


def test_an_update_of_a_folder_that_was_reset_or_closed_meanwhile_is_discarded(session, folder):
    """A batch update takes several steps. A folder that was reset must not get the result of an earlier one."""
    session.open(folder)
    name = str(folder.resolve())
    engine, workspace = session.engine, session.engine.workspace(name)
    for end in (workspace.reset, lambda: engine.close_folder(name)):
        before = workspace.info().generation
        with (folder / "pkg" / "m3.py").open("a") as file:
            file.write(f"\n\ndef added_{before}(value):\n    return value\n")
        deadline = time.monotonic() + 60
        while engine._scheduler._updating is None or workspace.pending_update is None:
            assert time.monotonic() < deadline
            engine.idle_step()
        started = workspace.pending_update
        end()
        assert engine.due_in() <= 0  # the update that runs is finished and discarded
        while engine._scheduler._updating is not None:
            engine.idle_step()
        assert workspace.info().generation == before
        assert workspace.pending_update is None or workspace.pending_update is not started
        if name in engine._followed:
            session.run_until_idle(name)
    assert name not in engine._followed
