"""The update of several folders under `evo`: one call of the GRU on the device, by the count of calls."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import msgspec
import pytest
import torch

from c2l_lsp.config import Settings
from c2l_lsp.engine.session import Session
from c2l_lsp.model.hypernet import checkpoint
from c2l_lsp.model.hypernet.gru import CommitGRU, GRUConfig
from c2l_lsp.model.hypernet.lora_head import Code2LoRAHead, HeadConfig

FOLDERS = 3


@pytest.fixture
def evo(settings: Settings, tiny_folder: Path, tmp_path: Path) -> Settings:
    """Settings of a model that has random weights of `evo` beside it."""
    model = tmp_path / "model"
    shutil.copytree(tiny_folder, model)
    torch.manual_seed(1)
    head = HeadConfig(input_dim=128, hidden_dim=16, rank=4, type_dims={"q_proj": (64, 64), "v_proj": (64, 32)})
    gru = GRUConfig(diff_input_dim=128, repo_state_dim=128, hidden_dim=128)
    manifest = checkpoint.Manifest(kind="evo", head=head, gru=gru, alpha=8.0)
    checkpoint.save(checkpoint.Checkpoint.from_modules(manifest, Code2LoRAHead(head), CommitGRU(gru)), model / "evo")
    return msgspec.structs.replace(
        settings,
        model=msgspec.structs.replace(settings.model, path=str(model)),
        adapter=msgspec.structs.replace(settings.adapter, hypernetwork="evo"),
    )


def test_edits_of_several_folders_are_one_call_of_the_gru(
    accept_every_adapter, evo: Settings, tmp_path: Path, sources: list[str]
) -> None:
    with Session(evo) as session:
        names = []
        for number in range(FOLDERS):
            root = (tmp_path / f"folder{number}").resolve()
            root.mkdir()
            (root / "a.py").write_text(sources[number], encoding="utf-8")
            names.append(str(root))
            session.open(root)
            session.run_until_idle(str(root))
        engine = session.engine
        workspaces = [engine.workspace(name) for name in names]
        assert [workspace.info().generation for workspace in workspaces] == [1] * FOLDERS
        calls: list[tuple[int, torch.device]] = []
        gru = workspaces[0]._learner.network.gru
        gru.gru.register_forward_hook(lambda _, inputs, output: calls.append((len(inputs[0]), output[0].device)))
        for name, added in zip(names, ("first", "second", "third"), strict=True):
            with (Path(name) / "a.py").open("a", encoding="utf-8") as file:
                file.write(f"\n\ndef {added}(value):\n    return value * 2\n" * 4)
        deadline = time.monotonic() + 60
        while any(workspace.due_in(time.monotonic()) > 0 for workspace in workspaces):  # until all edits are noticed
            assert time.monotonic() < deadline
            time.sleep(0.01)
        while any(workspace.info().generation == 1 for workspace in workspaces):
            assert time.monotonic() < deadline
            engine.idle_step()
        assert calls == [(FOLDERS, engine.model.device)]
