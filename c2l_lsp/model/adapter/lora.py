"""Adapters: what a hypernetwork generates, how it is applied to a base model, and its export to PEFT.

An adapter has three parts, each optional:

| part | effect | shapes |
|---|---|---|
| final map C | y = E (h + C h) on the final hidden state h, with head E; ΔW of the head is E·C | C [d, d] |
| LoRA pairs | y += s · (x Aᵀ) Bᵀ on a projection of a layer (arXiv 2106.09685) | A [r, in], B [out, r] |
| kNN memory | mixes the tokens that followed similar positions into the probabilities (`knn_lm`) | no matrix |

`AdapterSlot` applies one adapter at a time to a base model. A change of adapter is one assignment between two forward
passes, so no pass ever runs under parts of two adapters.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from weakref import ReferenceType, ref

import torch
from torch import Tensor, nn

from c2l_lsp.errors import AdapterError, StorageError
from c2l_lsp.model.adapter.knn_lm import KnnMemory
from c2l_lsp.model.adapter.mixture import MixtureGate
from c2l_lsp.model.adapter.token_index import TokenIndex
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.model.runtime import kernel
from c2l_lsp.model.runtime.lora_pair import LoraPair


@dataclass(frozen=True)
class Adapter:
    """The adapter of one repository for one base model.

    `base` is the digest of that model, `kind` the name of the hypernetwork (or "sgd" for finetuning). The keys of
    `pairs` are module names such as `model.layers.0.self_attn.q_proj`.
    """

    base: str
    kind: str
    final_map: Tensor | None = None
    pairs: Mapping[str, LoraPair] = field(default_factory=dict)
    knn: KnnMemory | None = None

    @property
    def digest(self) -> str:
        """Hex digest of base, kind and all tensors: adapters with equal digests are equal bit for bit."""
        digest = hashlib.blake2b(f"{self.base}{self.kind}".encode(), digest_size=16)
        for tensor in self._tensors():
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        if self.knn is not None:
            digest.update(self.knn.digest)
        return digest.hexdigest()

    @property
    def empty(self) -> bool:
        """Whether the adapter has no part and so changes nothing."""
        return self.final_map is None and not self.pairs and self.knn is None

    @property
    def norm(self) -> float:
        """Frobenius norm of all matrices together: sqrt(‖C‖² + Σ ‖s·B A‖²). The kNN memory does not count."""
        total = float(self.final_map.float().square().sum()) if self.final_map is not None else 0.0
        for pair in self.pairs.values():  # ‖BA‖² = tr((BᵀB)(AAᵀ)), without forming BA
            total += float((pair.scale**2) * ((pair.B.T @ pair.B) * (pair.A @ pair.A.T)).sum())
        return total**0.5

    def relative_change(self, before: Adapter) -> float:
        """Norm of the difference of the matrices, divided by the larger of the two norms: from 0 to 2."""
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
        """The highest rank of any matrix; a final map counts as d."""
        final = 0 if self.final_map is None else int(self.final_map.shape[0])
        return max([final, *(int(pair.A.shape[0]) for pair in self.pairs.values())])

    def scaled(self, factor: float, knn_strength: float | None = None) -> Adapter:
        """The adapter with its matrices multiplied by `factor`.

        The strength of the kNN memory is multiplied by `knn_strength`, or by `factor` if that is None; at 0 or below
        the kNN memory is left out.
        """
        final = None if self.final_map is None else self.final_map * factor
        pairs = {name: LoraPair(p.A, p.B, p.scale * factor) for name, p in self.pairs.items()}
        strength = factor if knn_strength is None else knn_strength
        knn = self.knn.scaled(strength) if self.knn is not None and strength > 0 else None
        return Adapter(self.base, self.kind, final, pairs, knn)

    def without_knn(self) -> Adapter:
        """The adapter without its kNN memory."""
        return replace(self, knn=None)

    def with_tokens(self, tokens: TokenIndex, width: int, gate: MixtureGate) -> Adapter:
        """The adapter with another token index in its kNN memory; `width` is d, `gate` of a memory without keys."""
        if self.knn is None:
            return replace(self, knn=KnnMemory.without_keys(width, gate, tokens)) if len(tokens) else self
        return replace(self, knn=self.knn.with_tokens(tokens))

    def check(self, model: BaseModel) -> None:
        """Raise AdapterError unless the adapter was made for this model, fits its shapes and is finite."""
        if self.base != model.digest:
            raise AdapterError("The adapter was made for another base model; generate it again.")
        if self.final_map is not None and tuple(self.final_map.shape) != (model.d, model.d):
            raise AdapterError(
                f"The adapter's final map has shape {tuple(self.final_map.shape)}, not {(model.d,) * 2}."
            )
        for name, pair in self.pairs.items():
            _check_pair(name, pair, model)
        if self.knn is not None and self.knn.basis.shape[1] != model.d:
            raise AdapterError(
                f"The kNN memory of the adapter reads hidden states of width {self.knn.basis.shape[1]}, "
                f"the model has width {model.d}."
            )
        if not all(bool(torch.isfinite(tensor).all()) for tensor in self._tensors()):
            raise AdapterError("The adapter contains numbers that are not finite; it is not used.")

    def _tensors(self) -> list[Tensor]:
        final = [] if self.final_map is None else [self.final_map]
        return final + [tensor for _, pair in sorted(self.pairs.items()) for tensor in (pair.A, pair.B)]


def _check_pair(name: str, pair: LoraPair, model: BaseModel) -> None:
    try:
        linear = model.lm.get_submodule(name)
    except AttributeError as error:
        raise AdapterError(f"The adapter changes {name}, which the model does not have.") from error
    if (pair.B.shape[0], pair.A.shape[1]) != tuple(linear.weight.shape) or pair.A.shape[0] != pair.B.shape[1]:
        raise AdapterError(f"The adapter's LoRA pair for {name} does not fit its weight {tuple(linear.weight.shape)}.")


CACHED_ADAPTERS = 4
"""Adapters whose tensors a slot keeps on the device: those of the open folders and the one before a change."""


class AdapterSlot:
    """Applies the current adapter to a base model; without one the model runs alone.

    LoRA pairs act through forward hooks on the projections. A hook is registered the first time an adapter has a pair
    for its projection, and reads the current adapter at every call. So `activate` must not be called during a forward
    pass; the engine calls it between steps only.
    """

    def __init__(self, model: BaseModel) -> None:
        self._model = model
        self._adapter: Adapter | None = None
        self._pairs: Mapping[str, LoraPair] = {}
        self._final: Tensor | None = None
        self._hooked: set[str] = set()
        self._cache: list[tuple[Adapter, Mapping[str, LoraPair], Tensor | None]] = []

    @property
    def pairs(self) -> Mapping[str, LoraPair]:
        """LoRA pairs of the current adapter by module name; the same object as long as the adapter is current."""
        return self._pairs

    @property
    def reference(self) -> ReferenceType[Adapter] | None:
        """The current adapter, to be recognised later without being kept alive; None without one."""
        return None if self._adapter is None else ref(self._adapter)

    def activate(self, adapter: Adapter | None) -> None:
        """Make `adapter` the current one; None selects the base model alone.

        The adapter must have passed `Adapter.check`. The tensors of the last CACHED_ADAPTERS are not copied again.
        """
        if adapter is self._adapter:
            return
        self._adapter = adapter
        if adapter is None:
            self._pairs, self._final = {}, None
            return
        for known, pairs, final in self._cache:
            if known is adapter:
                self._pairs, self._final = pairs, final
                return
        self._pairs, self._final = self._to_device(adapter)
        self._cache = [*self._cache[1 - CACHED_ADAPTERS :], (adapter, self._pairs, self._final)]

    def _to_device(self, adapter: Adapter) -> tuple[Mapping[str, LoraPair], Tensor | None]:
        """The adapter's pairs and final map on the model's device; registers hooks for the pairs."""
        device, dtype = self._model.device, self._model.dtype
        pairs = {name: LoraPair(p.A.to(device), p.B.to(device), p.scale) for name, p in adapter.pairs.items()}
        for name in pairs.keys() - self._hooked:
            self._model.lm.get_submodule(name).register_forward_hook(self._hook(name))
            self._hooked.add(name)
        final = None if adapter.final_map is None else adapter.final_map.to(device=device, dtype=dtype)
        return pairs, final

    def apply_final_map(self, hidden: Tensor) -> Tensor:
        """h + C h for final hidden states [..., d]; h itself if the current adapter has no final map."""
        if self._final is None:
            return hidden
        compiled = kernel.apply_final_map(hidden, self._final) if hidden.dim() == 2 else None
        return hidden + hidden @ self._final.T if compiled is None else compiled

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [..., V] of final hidden states [..., d], with the current final map and without the kNN memory."""
        return self._model.logits(self.apply_final_map(hidden))

    def mix_knn(self, hidden: Tensor, logits: Tensor, before: Sequence[Sequence[int]]) -> Tensor:
        """Mix the kNN memory of the current adapter into logits [n, V]; returns fp32 logits if there is one.

        `hidden` [n, d] are final hidden states before the final map, `before` the tokens up to each position.
        """
        knn = self._adapter.knn if self._adapter is not None else None
        return logits if knn is None else knn.interpolate(hidden, logits, before)

    def _hook(self, name: str) -> Any:  # noqa: ANN401 - torch's hook signature
        def add_delta(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            pair = self._pairs.get(name)
            if pair is None:
                return output
            delta = (inputs[0].float() @ pair.A.T) @ pair.B.T  # fp32, as in the code of Code2LoRA
            return output + (pair.scale * delta).to(output.dtype)

        return add_delta


def low_rank_factors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, float]:
    """The best rank-r factors B [m, r] and A [r, n] of a matrix [m, n], and the relative Frobenius error ‖M − B A‖/‖M‖.

    By truncated SVD, in fp64; the factors are fp32 and share the singular values equally.
    """
    U, s, Vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    kept = s[:rank]
    total = float(s.square().sum())
    error = (float(s[rank:].square().sum()) / total) ** 0.5 if total > 0 else 0.0
    root = kept.sqrt()
    return (U[:, :rank] * root).float(), (root[:, None] * Vh[:rank]).float(), error


def export_peft(adapter: Adapter, model: BaseModel, out: Path, rank: int = 0) -> tuple[int, float]:
    """Write the adapter as a directory for `peft.PeftModel.from_pretrained`; returns its rank and the error of ΔW.

    The final map becomes a LoRA pair of the head: ΔW = E·C ≈ (E·B) A, with C ≈ B A of rank `rank`; 0 means d, which is
    exact. The kNN memory is not exported. Raises StorageError if the directory cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    error = 0.0
    head = _name_of(model.lm, model.lm.get_output_embeddings())
    if adapter.final_map is not None:
        wanted = min(rank or model.d, model.d)
        B, A, error = low_rank_factors(adapter.final_map, wanted)
        ranks[head] = wanted
        tensors[f"base_model.model.{head}.lora_A.weight"] = A
        tensors[f"base_model.model.{head}.lora_B.weight"] = model.head_weight.detach().float().cpu() @ B
    for name, pair in adapter.pairs.items():
        ranks[name] = int(pair.A.shape[0])
        tensors[f"base_model.model.{name}.lora_A.weight"] = pair.A.float().cpu().contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = (pair.scale * pair.B).float().cpu().contiguous()
    if not ranks:
        ranks[head] = 1  # PEFT needs at least one pair
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
