"""Small updates keep the last validation result; validation follows behind the new generation."""

from __future__ import annotations

import time
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace

import pytest

from c2l_lsp.cooperative import drain
from c2l_lsp.engine.adaptation import adapter_state
from c2l_lsp.engine.adaptation.adapter_state import AdapterState
from c2l_lsp.engine.adaptation.validation import ValidationResult, Validator
from c2l_lsp.model.adapter.lora import Adapter, AdapterSlot
from tests.support.engine_driver import at_work, changes, live, wait


@pytest.fixture
def validations(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The times of each validation; from the second on it returns half of the strength."""
    times: list[float] = []

    def validate_in_slices(*_: object) -> Generator[None, None, ValidationResult]:
        yield
        times.append(time.perf_counter())
        return ValidationResult(1.0 if len(times) == 1 else 0.5, 0.0, 100, knn_strength=1.0)

    monkeypatch.setattr(Validator, "validate_in_slices", validate_in_slices)
    monkeypatch.setattr(adapter_state, "_REVALIDATE_SHARE", 0.1)
    return times


def edit(folder: Path, number: int) -> None:
    with (folder / "pkg" / "m3.py").open("a") as file:
        file.write(f"\n\ndef name_{number}(value):\n    return value * {number}\n")


def test_what_small_changes_add_up_to_is_validations_behind_them(session, folder, validations):
    session.open(folder)
    edits = 0
    while len(validations) == 1 and edits < 30:
        edits += 1
        edit(folder, edits)
        wait(session, folder, edits + 1)
    assert edits > 1, "one small change is not validations"
    assert [event.trigger for event in changes(session)] == ["index", *["diff"] * edits, "gate"]
    before, after = changes(session)[-2:]
    assert after.info.generation == before.info.generation + 1
    assert session.engine.workspace(str(folder.resolve())).adapters.validation.strength == 0.5


def test_a_large_change_is_validations_before_it_is_live(session, folder, validations, sources):
    session.open(folder)
    for number in range(4):
        (folder / "pkg" / f"more{number}.py").write_text(sources[20 + number])
    wait(session, folder, 2)
    assert [event.trigger for event in changes(session)] == ["index", "diff"]
    assert len(validations) == 2
    assert changes(session)[-1].info.scale == 1.0
    assert session.engine.workspace(str(folder.resolve())).adapters.validation.strength == 0.5


def test_new_change_interrupts_validation_and_keeps_the_result(session, folder, validations, monkeypatch):
    session.open(folder)
    workspace = session.engine.workspace(str(folder.resolve()))
    workspace.adapters._changed_chunks = 10**6
    learner, adapter = workspace._learner, workspace.adapters.adapter
    assert drain(workspace.adapters.revalidate(adapter, learner, lambda: True)) is None
    assert len(validations) == 1
    assert workspace.adapters._changed_chunks == 10**6, "it starts again after the next update"
    assert workspace.adapters.validation.strength == 1.0


def test_negative_result_withdraws_a_live_adapter(session, folder, monkeypatch):
    results = [
        ValidationResult(1.0, 0.0, 100),
        ValidationResult(0.0, 0.1, 100, "it is worse", knn_strength=0.0),
        ValidationResult(1.0, 0.0, 100),
    ]

    def validate_in_slices(*_: object) -> Generator[None, None, ValidationResult]:
        yield
        return results.pop(0)

    monkeypatch.setattr(Validator, "validate_in_slices", validate_in_slices)
    monkeypatch.setattr(adapter_state, "_REVALIDATE_SHARE", 0.1)
    session.open(folder)
    workspace = session.engine.workspace(str(folder.resolve()))
    for kept_back in (True, False):
        workspace.adapters._changed_chunks = 0.15 * workspace._learner.chunk_count
        edit(folder, 7)
        at_work(session, folder, lambda: bool(changes(session)) and changes(session)[-1].trigger == "gate")
        assert ("not used: it is worse" in workspace.info().message) is kept_back
        assert (live(session, folder).adapter is None) is kept_back
        session.events.clear()


@pytest.mark.parametrize(("chunks", "first", "waits"), [(100, True, True), (40, True, False), (40, False, True)])
def test_further_part_of_a_folder_is_published_before_it_is_validated(tiny, chunks: int, first: bool, waits: bool):
    """Validation of a part took seconds, and an edit waited for it."""
    state = AdapterState(tiny, AdapterSlot(tiny), 1.0)
    validated = []
    state._validate = lambda learner: iter(validated.append(learner) or ())  # type: ignore[method-assign,assignment]
    plan = SimpleNamespace(changed_chunks=chunks, first=first)
    drain(state.validate(Adapter(tiny.digest, "memory"), plan, SimpleNamespace(chunk_count=100), lambda: False))
    assert bool(validated) is waits


def test_an_edit_does_not_wait_for_the_validation_of_a_large_change(session, folder, monkeypatch, sources):
    """Of 40 saves into 5,000 files, four waited 3 to 8 s, until a further part of the folder was validated."""
    session.open(folder)
    session.events.clear()
    endless = [True]

    def validate_in_slices(*_: object) -> Generator[None, None, ValidationResult]:
        while endless[0]:
            yield
        return ValidationResult(0.5, 0.0, 100, knn_strength=1.0)

    monkeypatch.setattr(Validator, "validate_in_slices", validate_in_slices)
    workspace = session.engine.workspace(str(folder.resolve()))
    for number in range(4):
        (folder / "pkg" / f"more{number}.py").write_text(sources[20 + number])
    at_work(session, folder, lambda: workspace._unpublished is not None)
    edit(folder, 1)
    at_work(session, folder, lambda: any("pkg/m3.py" in event.paths for event in changes(session)))
    assert any("pkg/more" in path for event in changes(session) for path in event.paths), "it is live too"
    endless[0] = False
    at_work(session, folder, lambda: workspace.adapters.validation.strength == 0.5)


@pytest.mark.parametrize("known", [True, False])
def test_what_was_never_validated_is_not_used_when_an_edit_interrupts(tiny, known: bool):
    state = AdapterState(tiny, AdapterSlot(tiny), 1.0)
    if known:
        state.validation = ValidationResult(0.7, -0.1, 100)
    state._validate = lambda learner: iter([None])  # type: ignore[method-assign,assignment]
    plan, learner = SimpleNamespace(changed_chunks=100, first=False), SimpleNamespace(chunk_count=100)
    adapter = Adapter(tiny.digest, "memory")
    assert drain(state.validate(adapter, plan, learner, lambda: True)) == ("" if known else None)
    assert (state.adapter is adapter) is known
    assert state._changed_chunks == 100, "it is validated behind the generation, or by the next one"
