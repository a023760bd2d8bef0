"""Our own forward pass for Llama-shaped models: one sequence at a time, with an in-place KV cache.

A small model is bound by the number of operators that PyTorch dispatches, not by arithmetic. So projections are fused,
the rotary embedding of queries and keys is one complex product, and keys and values are written where they stay.

| model | prefill | decode step |
|---|---|---|
| small, fp32, CPU with the C kernel | C kernel, int8 weights | C kernel, int8 weights |
| other models whose int8 steps are faster | PyTorch, the model's dtype | int8 weights, C kernel or PyTorch |
| GPU | PyTorch, the model's dtype | PyTorch; up to 9 tokens as a CUDA graph |
| all others | PyTorch, the model's dtype | PyTorch, the model's dtype |

Attention sums in an order that does not depend on the number of rows. So on a CPU with bf16 products in oneDNN, and in
the C kernel, a token gets the same bits in a whole prompt, after a reused prefix, in a decode step and in a checked
draft. PyTorch's int8 operator rounds activations to bf16: keys and values of such steps differ from those of a prefill,
which is why the decoder prefills an accepted answer again (`decode_matches_prefill` is False).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from c2l_lsp.model.adapter.lora import AdapterSlot
from c2l_lsp.model.runtime.attention import Attention
from c2l_lsp.model.runtime.cuda_graph import ROWS, FixedStep
from c2l_lsp.model.runtime.fusion import fuse_projections, is_small, merge_lora, packing_is_faster
from c2l_lsp.model.runtime.int8_model import KV_DTYPE, Int8Model
from c2l_lsp.model.runtime.kernel_layers import KernelLayers, KernelSequence
from c2l_lsp.model.runtime.lora_pair import LoraPair
from c2l_lsp.model.runtime.quantized_linear import (
    KernelInt8Linear,
    TorchInt8Linear,
    attach_lora,
    build_kernel_layers,
    int8_is_faster,
    kernel_supports,
)
from c2l_lsp.model.runtime.weights import DenseLinear, Layer, RotaryTable, Weights

_Dense = TypeVar("_Dense", Layer, Weights)

_CACHED_WEIGHTS = 2  # adapters whose weights are kept: the current one and the one before or after it
_CAPACITY_STEP = 256  # the KV cache of a sequence grows by this many positions
_CPU_CHUNK = 256  # tokens per prefill call on a CPU; smaller calls cost more per token

ALL_TOKENS = 1 << 30
"""More tokens than any prompt has."""


@dataclass(frozen=True)
class _Span:
    """What all layers of one forward pass share: the positions `start` to `end` and their rotary factors."""

    start: int
    end: int
    rotation: Tensor  # [T, H + 2K, h/2] complex64


@dataclass(frozen=True)
class _WeightSet:
    """The weights of one adapter for prefills and for decode steps; the same object where steps need no other form.

    `kernel_layers` is `decode` in the format of the C kernel, if the kernel supports it.
    """

    prefill: Weights
    decode: Weights
    kernel_layers: KernelLayers | None = None


class NativeReader:
    """`SequenceReader` on our own forward pass, under the current adapter of an `AdapterSlot`.

    The LoRA pairs of an adapter are merged into a copy of their layers. In a model that is too large for a copy they
    are applied beside the base weights.
    """

    def __init__(
        self,
        lm: Any,  # noqa: ANN401 - a model `unsupported_reason` accepts
        adapters: AdapterSlot,
        int8: bool | None = None,
        fixed_shapes: bool | None = None,
        compiled: bool | None = None,
        int8_model: Int8Model | None = None,
    ) -> None:
        """Fuse and, where needed, quantise the weights. None means: where it is faster.

        `int8`: decode steps use int8 weights. `compiled`: they run in the C kernel. `fixed_shapes`: they have fixed
        shapes and are recorded as CUDA graphs. `int8_model` is the int8 form of the base model, if it exists already.
        """
        self._lm, self._adapters = lm, adapters
        self._packs, self._small = packing_is_faster(lm), is_small(lm)
        self._int8 = int8_is_faster(lm) if int8 is None else int8
        self.fixed_shapes = lm.device.type == "cuda" if fixed_shapes is None else fixed_shapes
        self._kernel_decodes = self._int8 and (kernel_supports(lm) if compiled is None else compiled)
        self._kernel_prefills = self._kernel_decodes and lm.dtype == torch.float32 and self._small
        self.kv_dtype = KV_DTYPE if self._kernel_prefills else lm.dtype
        if int8_model is not None and self._kernel_prefills:
            self._base = _WeightSet(int8_model.weights, int8_model.weights, int8_model.layers)
        else:
            self._base = self._weight_set(*self._converted(fuse_projections(lm)))
        self._cache: list[tuple[Mapping[str, LoraPair], _WeightSet]] = []
        self.rotations = RotaryTable(self._base.prefill)
        self.attention = Attention(self._base.prefill)

    @property
    def decode_matches_prefill(self) -> bool:
        """Whether a decode step leaves the same keys and values as a prefill, up to rounding."""
        return self._kernel_prefills or not self._int8

    @property
    def prefill_chunk(self) -> int:
        """Tokens of a prompt to prefill per call; the division into calls does not change any bit."""
        if (layers := self.compiled_prefill) is not None:
            return layers.slice_tokens
        return ALL_TOKENS if self._lm.device.type == "cuda" else _CPU_CHUNK

    def weights(self, step: bool = False) -> Weights:
        """The fused weights under the current adapter, for decode steps if `step`, else for prefills."""
        current = self._current(self._adapters.pairs)
        return current.decode if step else current.prefill

    @property
    def compiled_decode(self) -> KernelLayers | None:
        """The layers under the current adapter with which the C kernel decodes; None if it does not."""
        return self._current(self._adapters.pairs).kernel_layers

    @property
    def compiled_prefill(self) -> KernelLayers | None:
        """The layers under the current adapter with which the C kernel prefills; None if it does not."""
        return self.compiled_decode if self._kernel_prefills else None

    def _current(self, pairs: Mapping[str, LoraPair]) -> _WeightSet:
        if not pairs:
            return self._base
        for cached, weights in self._cache:
            if cached is pairs:
                return weights
        adapted = self._adapted(pairs)
        self._cache = [*self._cache[1 - _CACHED_WEIGHTS :], (pairs, adapted)]
        return adapted

    def _adapted(self, pairs: Mapping[str, LoraPair]) -> _WeightSet:
        """The weights with the pairs merged, or beside the base weights if the model is large."""
        base = self._base
        if not self._small:
            prefill, decode = (
                weights.with_layers(attach_lora(self._lm, weights, pairs)) for weights in (base.prefill, base.decode)
            )
            return self._weight_set(prefill, decode)
        layers = {i: self._converted(layer) for i, layer in merge_lora(self._lm, base.prefill.head_dim, pairs).items()}
        prefill = base.prefill.with_layers({i: layer for i, (layer, _) in layers.items()})
        return self._weight_set(prefill, base.decode.with_layers({i: layer for i, (_, layer) in layers.items()}))

    def _weight_set(self, prefill: Weights, decode: Weights) -> _WeightSet:
        layers = build_kernel_layers(decode, self.kv_dtype) if self._kernel_decodes else None
        return _WeightSet(prefill, decode if self._int8 else prefill, layers)

    def _converted(self, dense: _Dense) -> tuple[_Dense, _Dense]:
        """Dense weights in the forms for prefills and for decode steps."""
        prefill = dense.map_linears(DenseLinear.pack) if self._packs else dense
        if not self._int8:
            return prefill, prefill
        decode = dense.map_linears(KernelInt8Linear.quantize if self._kernel_decodes else TorchInt8Linear.quantize)
        return (decode if self._kernel_prefills else prefill), decode

    @property
    def shape(self) -> Weights:
        """Weights from which sizes can be read."""
        return self._base.prefill

    def prepare(self) -> None:
        """Merge the pairs of the current adapter now rather than in the next call."""
        self._current(self._adapters.pairs)

    def new_sequence(self) -> NativeSequence:
        """A sequence without tokens."""
        return NativeSequence(self)

    def logits(self, hidden: Tensor, step: bool = False) -> Tensor:
        """Logits [n, V] of final hidden states [n, d] under the current adapter, without its kNN memory."""
        current, mapped = self._current(self._adapters.pairs), self._adapters.apply_final_map(hidden)
        return (current.decode if step else current.prefill).head(mapped)

    def span(self, start: int, end: int) -> _Span:
        """The positions from `start` to `end` with their rotary factors."""
        return _Span(start, end, self._base.prefill.expand_rotations(self.rotations(end)[start:end]))


class NativeSequence:
    """`KVSequence` of a `NativeReader`. The KV cache is [layers, capacity, 2·K·h]: keys, then values of a position."""

    def __init__(self, reader: NativeReader) -> None:
        self._reader = reader
        self.length = 0
        self._cache = torch.empty(0)
        self._layer_kv: list[Tensor] = []  # views of the cache: [capacity, 2·K·h] for each layer
        self._fixed_steps: dict[int, tuple[Weights, FixedStep]] = {}
        self._bound: list[tuple[KernelLayers, KernelSequence]] = []

    def prefill(self, ids: list[int], all_positions: bool = False) -> Tensor:
        """Append n prompt tokens. Returns final hidden states [n, d] at all of them, or [1, d] at the last."""
        if (layers := self._reader.compiled_prefill) is not None:
            return self._run_kernel(ids, self._reader.shape, layers, all_positions)
        return self._forward(ids, self._reader.weights(), all_positions)

    def decode(self, ids: list[int]) -> Tensor:
        """Append n tokens in one decode step: a token and its draft. Returns final hidden states [n, d] at all."""
        w = self._reader.weights(step=True)
        if (layers := self._reader.compiled_decode) is not None:
            return self._run_kernel(ids, w, layers)
        if self._reader.fixed_shapes and len(ids) <= ROWS[-1]:
            return self._run_fixed(ids, w)
        return self._forward(ids, w, True)

    def _run_kernel(self, ids: list[int], w: Weights, layers: KernelLayers, all_positions: bool = True) -> Tensor:
        self._reserve(self.length + len(ids))
        sequence = next((bound for known, bound in self._bound if known is layers), None)
        if sequence is None:
            sequence = layers.bind(self._cache, self._reader.rotations(self._cache.shape[1]))
            self._bound = [*self._bound[-1:], (layers, sequence)]
        hidden = sequence(ids, self.length, all_positions)
        self.length += len(ids)
        return hidden.to(w.embedding.dtype)

    @torch.inference_mode()
    def _run_fixed(self, ids: list[int], w: Weights) -> Tensor:
        rows = next(rows for rows in ROWS if rows >= len(ids))
        self._reserve(self.length + rows)
        known = self._fixed_steps.get(rows)
        if known is None or known[0] is not w:
            rotations = self._reader.rotations(len(self._layer_kv[0]))
            known = self._fixed_steps[rows] = (w, FixedStep(w, rotations, self._layer_kv, rows))
        hidden = known[1](ids, self.length)
        self.length += len(ids)
        return hidden

    @torch.inference_mode()
    def _forward(self, ids: list[int], w: Weights, all_positions: bool) -> Tensor:
        reader = self._reader
        span = reader.span(self.length, self.length + len(ids))
        self._reserve(span.end)
        x = functional.embedding(torch.tensor(ids, device=w.embedding.device), w.embedding)  # [T, d]
        for layer, kv in zip(w.layers[:-1], self._layer_kv, strict=False):
            q = self._project(x, layer, kv, span)
            x = layer.mlp(x + layer.output(reader.attention(q, kv, span.start, span.end)))
        layer, kv = w.layers[-1], self._layer_kv[-1]
        q = self._project(x, layer, kv, span)
        if not all_positions and len(ids) > 1:  # the last layer computes the last row only
            q, x, span = q[-1:], x[-1:], reader.span(span.end - 1, span.end)
        x = layer.mlp(x + layer.output(reader.attention(q, kv, span.start, span.end)))
        self.length += len(ids)
        return w.norm(x)

    def crop(self, length: int) -> None:
        """Drop the tokens from position `length` on."""
        self.length = min(self.length, length)

    def _project(self, x: Tensor, layer: Layer, kv: Tensor, span: _Span) -> Tensor:
        """Queries [T, H, h] of x [T, d]; writes its keys and values to kv [capacity, 2·K·h]."""
        w = self._reader.shape
        heads = w.rotated_heads(layer, x, span.rotation)  # [T, H + 2K, h]
        kv[span.start : span.end] = heads[:, w.heads :].flatten(1)
        return heads[:, : w.heads].to(x.dtype)

    def _reserve(self, end: int) -> None:
        """Grow the cache to at least `end` positions, with zeros: masked positions are multiplied too."""
        if self._layer_kv and end <= len(self._layer_kv[0]):
            return
        w = self._reader.shape
        capacity = (end // _CAPACITY_STEP + 2) * _CAPACITY_STEP  # leaves room for the answer
        shape = (len(w.layers), capacity, 2 * w.kv_heads * w.head_dim)
        grown = w.embedding.new_zeros(shape, dtype=self._reader.kv_dtype)
        for new, old in zip(grown, self._layer_kv, strict=False):
            new[: self.length] = old[: self.length]
        self._cache, self._layer_kv = grown, list(grown)
        self._fixed_steps, self._bound = {}, []  # they hold addresses of the old cache
