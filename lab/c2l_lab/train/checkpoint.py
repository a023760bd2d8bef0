"""A training run on disk: whole checkpoints that an exact resume starts from. Tensors in safetensors, the rest in JSON.

RUN/step-0001200/{model,optimiser}.safetensors + state.json      written aside, renamed last
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

_KEEP = 3


def newest(run: Path) -> Path | None:
    """The newest whole checkpoint of a run, None when it has none."""
    found = sorted(run.glob("step-*[0-9]"))
    return found[-1] if found else None


def _flat(optimisers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    return {
        f"{n}.{index}.{name}": value if value.dim() else value.reshape(1)
        for n, optimiser in enumerate(optimisers)
        for index, entry in optimiser.state_dict()["state"].items()
        for name, value in entry.items()
    }


def save(
    run: Path, step: int, model: dict[str, Tensor], optimisers: list[torch.optim.Optimizer], state: dict[str, Any]
) -> Path:
    """Write one checkpoint and drop all but the newest three. Raises StorageError when the disk refuses."""
    target = run / f"step-{step:07d}"
    part = run / f"{target.name}.part"
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        save_file({name: value.detach().contiguous() for name, value in model.items()}, part / "model.safetensors")
        save_file(_flat(optimisers), part / "optimiser.safetensors")
        (part / "state.json").write_text(json.dumps({**state, "step": step}), "utf-8")
        shutil.rmtree(target, ignore_errors=True)
        part.replace(target)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise StorageError(f"The checkpoint in {run} can't be written ({error}); the last one is whole.") from error
    for old in sorted(run.glob("step-*[0-9]"))[:-_KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """(weights, optimiser tensors, state) of one checkpoint. Raises CheckpointError when it is not whole."""
    try:
        state = json.loads((folder / "state.json").read_text("utf-8"))
        return load_file(folder / "model.safetensors"), load_file(folder / "optimiser.safetensors"), state
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"The checkpoint {folder} is not whole: {error}.") from error


def restore(model: torch.nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy `weights` into `model`. Raises CheckpointError naming the first tensor of another shape or name."""
    own = dict(model.named_parameters())
    for name in sorted(set(own) ^ set(weights)):
        raise CheckpointError(f"The checkpoint is of another shape: {name} is only in one of the two.")
    for name, value in weights.items():
        if own[name].shape != value.shape:
            here, there = tuple(own[name].shape), tuple(value.shape)
            raise CheckpointError(f"The checkpoint is of another shape: {name} is {there} there and {here} here.")
    with torch.no_grad():
        for name, value in weights.items():
            own[name].copy_(value)


def restore_optimisers(optimisers: list[torch.optim.Optimizer], flat: dict[str, Tensor]) -> None:
    """Put saved moments back into freshly made optimisers over the same parameters in the same order."""
    for n, optimiser in enumerate(optimisers):
        shapes = [p.shape for group in optimiser.param_groups for p in group["params"]]
        entries: dict[int, dict[str, Tensor]] = {}
        for key, value in flat.items():
            which, index, name = key.split(".", 2)
            if int(which) == n:
                # scalars are kept as (1,): the count of steps, and the moments of scalar weights
                shape = torch.Size() if name == "step" else shapes[int(index)]
                entries.setdefault(int(index), {})[name] = value.reshape(shape) if value.numel() == 1 else value
        made = optimiser.state_dict()
        made["state"] = entries
        optimiser.load_state_dict(made)
