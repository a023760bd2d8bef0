"""Adapters: what a hypernetwork makes, how it is applied to a base model, and its ordinary PEFT form.

Three parts, any may be absent. The *final map* C [d, d] acts on the final hidden state before the head,
y = E (h + C h), so ΔW of the head is E·C. *Pairs* are LoRA factors of inner projections, y += s·(x Aᵀ) Bᵀ. *Recall*
mixes what came next in the repository into the probabilities; it is no matrix and no part of the PEFT form.
Applying an adapter is one assignment: a running forward pass sees the old one or the new one, never half of each.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from c2l_lsp.errors import AdapterError, StorageError
from c2l_lsp.model.adapter.knn_lm import KnnMemory
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.model.runtime import kernel
from c2l_lsp.model.runtime.lora_pair import LoraPair


@dataclass(frozen=True)
class Adapter:
    """A repository's weights. `base` is the digest of the model they were made for."""

    base: str
    kind: str
    final_map: Tensor | None = None
    pairs: Mapping[str, LoraPair] = field(default_factory=dict)
    knn: KnnMemory | None = None

    @property
    def digest(self) -> str:
        """Names the weights exactly; equal digests mean bit-equal adapters."""
        digest = hashlib.blake2b(f"{self.base}{self.kind}".encode(), digest_size=16)
        for tensor in self._tensors():
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        if self.knn is not None:
            digest.update(self.knn.digest)
        return digest.hexdigest()

    @property
    def empty(self) -> bool:
        """Whether it changes nothing."""
        return self.final_map is None and not self.pairs and self.knn is None

    @property
    def norm(self) -> float:
        """Frobenius norm of everything the adapter adds (‖C‖ for the final map, ‖s·B A‖ for pairs)."""
        total = float(self.final_map.float().square().sum()) if self.final_map is not None else 0.0
        for pair in self.pairs.values():  # ‖BA‖² = tr((BᵀB)(AAᵀ)), without forming BA
            total += float((pair.scale**2) * ((pair.B.T @ pair.B) * (pair.A @ pair.A.T)).sum())
        return total**0.5

    def relative_change(self, before: Adapter) -> float:
        """How far it is from another: the norm of their difference, relative to the larger norm. 0 to 2, exact."""
        inner = 0.0
        if self.final_map is not None and before.final_map is not None:
            inner = float((self.final_map.float() * before.final_map.float()).sum())
        for name in self.pairs.keys() & before.pairs.keys():  # ⟨BA, B′A′⟩ = tr((BᵀB′)(A′Aᵀ)), without forming either
            new, old = self.pairs[name], before.pairs[name]
            inner += float(new.scale * old.scale * ((new.B.T @ old.B) * (new.A @ old.A.T)).sum())
        norm, other = self.norm, before.norm
        largest = max(norm, other)
        return max(0.0, norm**2 + other**2 - 2 * inner) ** 0.5 / largest if largest > 0 else 0.0

    @property
    def rank(self) -> int:
        """Largest rank of its parts; a final map counts as full."""
        final = 0 if self.final_map is None else int(self.final_map.shape[0])
        return max([final, *(int(pair.A.shape[0]) for pair in self.pairs.values())])

    def scaled(self, factor: float, knn_strength: float | None = None) -> Adapter:
        """The same adapter at another strength; the kNN memory gets `knn_strength` if that is given."""
        final = None if self.final_map is None else self.final_map * factor
        pairs = {name: LoraPair(p.A, p.B, p.scale * factor) for name, p in self.pairs.items()}
        share = factor if knn_strength is None else knn_strength
        recalled = self.knn.scaled(share) if self.knn is not None and share > 0 else None
        return Adapter(self.base, self.kind, final, pairs, recalled)

    def without_knn(self) -> Adapter:
        """Its matrices alone."""
        return replace(self, knn=None)

    def check(self, model: BaseModel) -> None:
        """AdapterError unless this adapter belongs to the model, has its shapes and is finite."""
        if self.base != model.digest:
            raise AdapterError("The adapter was made for another base model; regenerate it.")
        if self.final_map is not None and tuple(self.final_map.shape) != (model.d, model.d):
            raise AdapterError(
                f"The adapter's final map has shape {tuple(self.final_map.shape)}, not {(model.d,) * 2}."
            )
        for name, pair in self.pairs.items():
            _check_pair(name, pair, model)
        if self.knn is not None and self.knn.basis.shape[1] != model.d:
            raise AdapterError(f"The adapter's keys are of width {self.knn.basis.shape[1]}, not {model.d}.")
        if not all(bool(torch.isfinite(tensor).all()) for tensor in self._tensors()):
            raise AdapterError("The adapter holds numbers that are not finite; it is not used.")

    def _tensors(self) -> list[Tensor]:
        final = [] if self.final_map is None else [self.final_map]
        return final + [tensor for _, pair in sorted(self.pairs.items()) for tensor in (pair.A, pair.B)]


def _check_pair(name: str, pair: LoraPair, model: BaseModel) -> None:
    try:
        linear = model.lm.get_submodule(name)
    except AttributeError as error:
        raise AdapterError(f"The adapter names {name}, which the model does not have.") from error
    if (pair.B.shape[0], pair.A.shape[1]) != tuple(linear.weight.shape) or pair.A.shape[0] != pair.B.shape[1]:
        raise AdapterError(f"The adapter's factors for {name} do not fit its weight {tuple(linear.weight.shape)}.")


KEPT = 4
"""Adapters a slot keeps ready: those of the folders one works in, and the one before a swap."""


class AdapterSlot:
    """The place an adapter is plugged into a model. `use` swaps it by one reference; None is the bare model.

    Hooks on inner projections are made the first time an adapter has pairs for them; they read the current reference
    at every call, so one forward pass must run under one `use` (the engine never swaps inside a step).
    """

    def __init__(self, model: BaseModel) -> None:
        self._model = model
        self._adapter: Adapter | None = None
        self._pairs: Mapping[str, LoraPair] = {}
        self._final: Tensor | None = None
        self._hooked: set[str] = set()
        self._ready: list[tuple[Adapter, Mapping[str, LoraPair], Tensor | None]] = []

    @property
    def pairs(self) -> Mapping[str, LoraPair]:
        """Inner pairs of the current adapter by module name; the same object for as long as it is current."""
        return self._pairs

    def activate(self, adapter: Adapter | None) -> None:
        """Make `adapter` the current one; it must have passed `check`. One used lately is put back as it was."""
        if adapter is self._adapter:
            return
        self._adapter = adapter
        if adapter is None:
            self._pairs, self._final = {}, None
            return
        for known, pairs, final in self._ready:
            if known is adapter:
                self._pairs, self._final = pairs, final
                return
        self._pairs, self._final = self._prepared(adapter)
        self._ready = [*self._ready[1 - KEPT :], (adapter, self._pairs, self._final)]

    def _prepared(self, adapter: Adapter) -> tuple[Mapping[str, LoraPair], Tensor | None]:
        """Its parts on the model's device, with hooks where it has pairs."""
        device, dtype = self._model.device, self._model.dtype
        pairs = {name: LoraPair(p.A.to(device), p.B.to(device), p.scale) for name, p in adapter.pairs.items()}
        for name in pairs.keys() - self._hooked:
            self._model.lm.get_submodule(name).register_forward_hook(self._hook(name))
            self._hooked.add(name)
        final = None if adapter.final_map is None else adapter.final_map.to(device=device, dtype=dtype)
        return pairs, final

    def apply_final_map(self, hidden: Tensor) -> Tensor:
        """Final hidden states [..., d] as the head sees them: h + C h under an adapter with a final map."""
        if self._final is None:
            return hidden
        quick = kernel.apply_final_map(hidden, self._final) if hidden.dim() == 2 else None
        return hidden + hidden @ self._final.T if quick is None else quick

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits of final hidden states [..., d] under the current adapter's matrices."""
        return self._model.logits(self.apply_final_map(hidden))

    def mix_knn(self, hidden: Tensor, logits: Tensor, before: Sequence[Sequence[int]]) -> Tensor:
        """Logits [n, V] with what the current adapter recalls after these tokens each; `hidden` [n, d] is unmapped."""
        recall = self._adapter.knn if self._adapter is not None else None
        return logits if recall is None else recall.interpolate(hidden, logits, before)

    def _hook(self, name: str) -> Any:  # noqa: ANN401 - torch's hook signature
        def add_delta(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            pair = self._pairs.get(name)
            if pair is None:
                return output
            delta = (inputs[0].float() @ pair.A.T) @ pair.B.T  # fp32, as the paper's code does
            return output + (pair.scale * delta).to(output.dtype)

        return add_delta


def factor(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, float]:
    """Best rank-`rank` factors (B [m, r], A [r, n]) of a matrix [m, n], and the relative Frobenius error left."""
    U, s, Vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    kept = s[:rank]
    total = float(s.square().sum())
    error = (float(s[rank:].square().sum()) / total) ** 0.5 if total > 0 else 0.0
    root = kept.sqrt()
    return (U[:, :rank] * root).float(), (root[:, None] * Vh[:rank]).float(), error


def export_peft(adapter: Adapter, model: BaseModel, out: Path, rank: int = 0) -> tuple[int, float]:
    """Write a PEFT directory that `peft.PeftModel.from_pretrained` loads; returns its rank and error of ΔW.

    The final map becomes a LoRA on the head: ΔW = E·C = (E·B) A with C ≈ B A of `rank` (0: d, which is exact).
    StorageError if the folder cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    error = 0.0
    head = _name_of(model.lm, model.lm.get_output_embeddings())
    if adapter.final_map is not None:
        wanted = min(rank or model.d, model.d)
        B, A, error = factor(adapter.final_map, wanted)
        ranks[head] = wanted
        tensors[f"base_model.model.{head}.lora_A.weight"] = A
        tensors[f"base_model.model.{head}.lora_B.weight"] = model.head_weight.detach().float().cpu() @ B
    for name, pair in adapter.pairs.items():
        ranks[name] = int(pair.A.shape[0])
        tensors[f"base_model.model.{name}.lora_A.weight"] = pair.A.float().cpu().contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = (pair.scale * pair.B).float().cpu().contiguous()
    if not ranks:
        ranks[head] = 1  # an adapter that changes nothing is still a valid directory
        tensors[f"base_model.model.{head}.lora_A.weight"] = torch.zeros(1, model.d)
        tensors[f"base_model.model.{head}.lora_B.weight"] = torch.zeros(model.vocabulary, 1)
    _write(out, _peft_config(model, ranks), {name: tensor.contiguous() for name, tensor in tensors.items()})
    return max(ranks.values()), error


def _peft_config(model: BaseModel, ranks: dict[str, int]) -> dict[str, Any]:
    top = max(ranks.values())
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": model.id,
        "inference_mode": True,
        "r": top,
        "lora_alpha": top,  # alpha / r = 1: the scale is in B
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(ranks),
        "rank_pattern": {name: rank for name, rank in ranks.items() if rank != top},
        "alpha_pattern": {name: rank for name, rank in ranks.items() if rank != top},
    }


def _write(out: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    from safetensors.torch import save_file

    try:
        out.mkdir(parents=True, exist_ok=True)
        save_file(tensors, out / "adapter_model.safetensors", metadata={"format": "pt"})
        (out / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"The adapter cannot be written to {out}: {error.strerror or error}.") from error


def _name_of(root: nn.Module, module: nn.Module) -> str:
    return next(name for name, candidate in root.named_modules() if candidate is module)
