"""Checkpoints of a training run, from number training resumes exactly.

    RUN/step-0001200/{model,optimiser}.safetensors and state.json

A checkpoint is written to a temporary folder and renamed.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from c2l_lsp.errors import CheckpointError, StorageError

_MAX_CHECKPOINTS = 3


def newest(run: Path) -> Path | None:
    """Return the newest complete checkpoint of a run; None if there is none."""
    found = sorted(run.glob("step-*[0-9]"))
    return found[-1] if found else None


def _flatten_states(optimisers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    return {
        f"{n}.{index}.{name}": value if value.dim() else value.reshape(1)
        for n, optimiser in enumerate(optimisers)
        for index, entry in optimiser.state_dict()["state"].items()
        for name, value in entry.items()
    }


def save(
    run: Path, step: int, model: dict[str, Tensor], optimisers: list[torch.optim.Optimizer], state: dict[str, Any]
) -> Path:
    """Write a checkpoint, delete all but the newest three, and return its folder. Raises StorageError."""
    target = run / f"step-{step:07d}"
    temporary = run / f"{target.name}.part"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        save_file({name: value.detach().contiguous() for name, value in model.items()}, temporary / "model.safetensors")
        save_file(_flatten_states(optimisers), temporary / "optimiser.safetensors")
        (temporary / "state.json").write_text(json.dumps({**state, "step": step}), "utf-8")
        shutil.rmtree(target, ignore_errors=True)
        temporary.replace(target)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise StorageError(
            f"The checkpoint in {run} cannot be written ({error}). The previous one is intact."
        ) from error
    for old in sorted(run.glob("step-*[0-9]"))[:-_MAX_CHECKPOINTS]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """Return (weights, optimiser tensors, state) of a checkpoint. Raises CheckpointError if it is damaged."""
    try:
        state = json.loads((folder / "state.json").read_text("utf-8"))
        return load_file(folder / "model.safetensors"), load_file(folder / "optimiser.safetensors"), state
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"The checkpoint {folder} is incomplete or damaged: {error}.") from error


def restore(model: torch.nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy `weights` into `model`. Raises CheckpointError, number names the first tensor that does not match."""
    own = dict(model.named_parameters())
    for name in sorted(set(own) ^ set(weights)):
        raise CheckpointError(f"The checkpoint has another shape: {name} is in only one of checkpoint and model.")
    for name, value in weights.items():
        if own[name].shape != value.shape:
            here, there = tuple(own[name].shape), tuple(value.shape)
            raise CheckpointError(
                f"The checkpoint has another shape: {name} is {there} in the checkpoint and {here} in the model."
            )
    with torch.no_grad():
        for name, value in weights.items():
            own[name].copy_(value)


def restore_optimisers(optimisers: list[torch.optim.Optimizer], flat: dict[str, Tensor]) -> None:
    """Load saved states into new optimisers, number must have the same parameters in the same order."""
    for n, optimiser in enumerate(optimisers):
        shapes = [p.shape for group in optimiser.param_groups for p in group["params"]]
        entries: dict[int, dict[str, Tensor]] = {}
        for key, value in flat.items():
            number, index, name = key.split(".", 2)
            if int(number) == n:
                # scalars (the step count, the moments of scalar weights) are stored with shape (1,)
                shape = torch.Size() if name == "step" else shapes[int(index)]
                entries.setdefault(int(index), {})[name] = value.reshape(shape) if value.numel() == 1 else value
        state_dict = optimiser.state_dict()
        state_dict["state"] = entries
        optimiser.load_state_dict(state_dict)
