"""A folder of real Python files, settings, and an in-process engine on the tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest

from c2l_lsp.config import Settings, merge
from c2l_lsp.engine.adaptation import sample, workspace_adapter
from c2l_lsp.engine.session import Session


@pytest.fixture
def folder(tmp_path: Path, sources: list[str]) -> Path:
    """A folder with twelve files of real code."""
    root = tmp_path / "project"
    (root / "pkg").mkdir(parents=True)
    for number, text in enumerate(sources[:12]):
        (root / "pkg" / f"m{number}.py").write_text(text, encoding="utf-8")
    return root


@pytest.fixture(autouse=True)
def one_generation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder gets its first generation with everything in it, so that a test can count generations.

    Tests marked `parts` see what a user sees: the token index first, then neural keys in parts.
    """
    if not request.node.get_closest_marker("parts"):
        monkeypatch.setattr(workspace_adapter, "_CHUNKS_PUBLISHED_FIRST", 10**9)
        monkeypatch.setattr(sample, "FIRST_PART", 10**9)


@pytest.fixture
def settings(tiny_folder: Path) -> Settings:
    """Settings for the tiny model, with short delays."""
    values = {
        "model": {"path": str(tiny_folder), "dtype": "float32", "device": "cpu"},
        "adapter": {"updateDelayMs": 20, "maxDelayMs": 200},
    }
    made, errors = merge(Settings(), values, source="test", machine=True)
    assert not errors
    return made


@pytest.fixture
def accept_every_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accept every adapter. Adapters for random weights would fail the validation."""
    from c2l_lsp.engine.adaptation.validation import ValidationResult, Validator

    def validate_in_slices(*_: object):
        yield
        return ValidationResult(1.0, 0.0, 0)

    monkeypatch.setattr(Validator, "validate_in_slices", validate_in_slices)


@pytest.fixture
def session(settings: Settings):
    with Session(settings) as opened:
        yield opened
