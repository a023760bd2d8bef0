"""The server of the typing benchmark runs what it is asked to run: it ran the default model under both names."""

from __future__ import annotations

from pathlib import Path

import pytest
from c2l_lab.benchmarks.typing.sides import Server

from c2l_lsp.model.lm.base import SHIPPED


@pytest.mark.timeout(300)
@pytest.mark.parametrize("model", SHIPPED)
def test_the_named_model_answers(tmp_path: Path, model: str) -> None:
    work = tmp_path / "work"
    work.mkdir()
    with Server(work, tmp_path / "private", {"model.id": model, "adapter.enable": False}) as server:
        server.open("a.py", "def add(a, b):\n    return ", "\n")
        assert server.ask(60.0)[1], "answered in time"
        assert server.model == model
