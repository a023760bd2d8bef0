"""Adapters in the work folder of a run, with the seconds each took. The format is private to `bench adapt`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from c2l_lsp.errors import AdapterError, StorageError
from c2l_lsp.model.adapter.knn_lm import KnnMemory
from c2l_lsp.model.adapter.lora import Adapter
from c2l_lsp.model.adapter.mixture import MixtureGate
from c2l_lsp.model.adapter.token_index import TokenIndex
from c2l_lsp.model.runtime.lora_pair import LoraPair


def save_adapter(adapter: Adapter, path: Path, seconds: float) -> None:
    """Write an adapter atomically. StorageError if that fails."""
    tensors: dict[str, Tensor] = {}
    if adapter.final_map is not None:
        tensors["final"] = adapter.final_map.contiguous()
    for name, pair in adapter.pairs.items():
        tensors[f"A.{name}"], tensors[f"B.{name}"] = pair.A.clone(), pair.B.clone()
    if adapter.knn is not None:
        memory = adapter.knn
        ids, keys = memory.positions.to_tensors()
        index = {f"tokens.{name}": torch.from_numpy(array.copy()) for name, array in memory.tokens.to_arrays().items()}
        tensors |= {
            "recall.ids": ids,
            "recall.keys": keys,
            "recall.basis": memory.basis,
            "recall.gate": torch.from_numpy(memory.gate.to_vector()),
            "recall.strength": torch.tensor(memory.strength, dtype=torch.float64),
            **index,
        }
    scales = {name: pair.scale for name, pair in adapter.pairs.items()}
    about = {"base": adapter.base, "kind": adapter.kind, "scales": json.dumps(scales), "seconds": repr(seconds)}
    part = path.with_name(f"{path.name}.{os.getpid()}.part")  # several shards may write the same adapter
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, part, metadata=about)
        part.replace(path)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}.") from error


def load_adapter(path: Path, base: str) -> tuple[Adapter, float]:
    """The adapter in a file and the seconds it took. AdapterError if it is damaged or for another base model."""
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata()
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - no mapping
        scales: dict[str, float] = json.loads(about["scales"])
        pairs = {name: LoraPair(tensors[f"A.{name}"], tensors[f"B.{name}"], scale) for name, scale in scales.items()}
        found = Adapter(about["base"], about["kind"], tensors.get("final"), pairs, _knn_memory(tensors))
        seconds = float(about["seconds"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise AdapterError(f"{path.name} is no adapter ({error}). Delete the file and run again.") from error
    if found.base != base:
        raise AdapterError(f"The adapter {path.name} belongs to another base model.")
    return found, seconds


def _knn_memory(tensors: dict[str, Tensor]) -> KnnMemory | None:
    if "recall.ids" not in tensors:
        return None
    ids, keys, basis, strength = (tensors[f"recall.{name}"] for name in ("ids", "keys", "basis", "strength"))
    arrays = {name[7:]: tensor.numpy() for name, tensor in tensors.items() if name.startswith("tokens.")}
    tokens = TokenIndex.from_arrays(arrays, vocabulary=2**31 - 1)
    gate = MixtureGate.from_vector(tensors["recall.gate"].numpy())
    return KnnMemory.of(ids, keys, basis, gate, float(strength), tokens)
