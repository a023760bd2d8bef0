"""Leaving the process group of torchrun."""

from __future__ import annotations

import atexit

import pytest
import torch
from c2l_lab.train.devices import Devices


def test_the_process_group_is_left_before_the_interpreter_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: threads of gloo that still ran when libraries were unloaded could abort the process."""
    events: list[str] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: "joined" in events)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend: events.append("joined"))
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: events.append("left"))
    left = []
    monkeypatch.setattr(atexit, "register", left.append)
    Devices()
    Devices()  # joins once
    assert len(left) == 1
    left[0]()
    assert events == ["joined", "left"]
