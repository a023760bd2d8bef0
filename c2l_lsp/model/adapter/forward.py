"""Our own forward pass for Llama-shaped models, one text at a time, with its keys and values in place.

Small models are bound by the number of operations PyTorch dispatches, not by arithmetic; so the projections are fused,
RoPE of queries and keys is one complex product, and the KV is written where it stays. Attention is plain products whose
sums keep their order however many rows are read at once: where oneDNN multiplies bf16 on the CPU, a token gets the same
bits in a prompt and after a reused prefix, and in a decode step and in a checked draft. Decode steps may run on int8
weights, half the memory to read. By our own kernel a small fp32 model is what its int8 weights say throughout, prompts
too: their sums of whole numbers take less time than fp32 ones, and a token has the same bits however its text is cut.
PyTorch's int8 kernel rounds activations to bf16; the KV of its steps differs from that of a prompt, and the decoder
reads an accepted answer again.
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
from c2l_lsp.model.runtime.weights import (
    DenseLinear,
    Layer,
    RotaryTable,
    Weights,
    fuse_projections,
    is_small,
    merge_lora,
    packing_is_faster,
)

_Plain = TypeVar("_Plain", Layer, Weights)

_MERGED = 2  # adapters whose merged layers are kept: the one in use and the one before or the next
_GROW = 256  # positions by which the KV of a text grows
_PORTION = 256  # tokens that a CPU reads at a time: fewer would cost more

ALL = 1 << 30
"""More tokens than any prompt has."""


@dataclass(frozen=True)
class _Pass:
    """What all layers of one forward pass share: tokens that stand from `start` to `end`."""

    start: int
    end: int
    rotation: Tensor  # [T, H + 2K, h/2] complex


@dataclass(frozen=True)
class _Forms:
    """The same weights for prompts and for decode steps; one object where steps are no faster otherwise.

    `quick` are the layers of `step` for one compiled call, where that can be.
    """

    prompt: Weights
    step: Weights
    quick: KernelLayers | None = None


class NativeReader:
    """Opens texts on one model. Inner pairs of the current adapter are merged into a private copy of their layers, or,
    where the model is too large for that, stand beside them.

    A text must be read under the adapter it was begun with (the decoder's `kv_key` sees to that). `int8` says whether
    decode steps run on int8 weights, `compiled` whether by our own kernel, `fixed` whether they have fixed shapes, for
    a CUDA graph; None: where that pays. `whole` is the bare model's int8 form, where that was made already.
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
        self._lm, self._adapters = lm, adapters
        self._packs, self._small = packing_is_faster(lm), is_small(lm)
        self._int8 = int8_is_faster(lm) if int8 is None else int8
        self.fixed_shapes = lm.device.type == "cuda" if fixed_shapes is None else fixed_shapes
        self._quick = self._int8 and (kernel_supports(lm) if compiled is None else compiled)
        self._one = self._quick and lm.dtype == torch.float32 and self._small
        self.kv_dtype = KV_DTYPE if self._one else lm.dtype
        if int8_model is not None and self._one:
            self._bare = _Forms(int8_model.weights, int8_model.weights, int8_model.layers)
        else:
            self._bare = self._both(*self._formed(fuse_projections(lm)))
        self._adapted: list[tuple[Mapping[str, LoraPair], _Forms]] = []
        self.rotations = RotaryTable(self._bare.prompt)
        self.attention = Attention(self._bare.prompt)

    @property
    def decode_matches_prefill(self) -> bool:
        """Whether a step leaves the same KV as a prompt, but for rounding."""
        return self._one or not self._int8

    @property
    def prefill_chunk(self) -> int:
        """Tokens of a prompt to be read at a time; the next ones have the same bits then."""
        if (whole := self.compiled_prefill) is not None:
            return whole.slice_tokens
        return ALL if self._lm.device.type == "cuda" else _PORTION

    def weights(self, step: bool = False) -> Weights:
        """The fused weights under the current adapter, for a prompt or for decode steps."""
        forms = self._forms(self._adapters.pairs)
        return forms.step if step else forms.prompt

    @property
    def compiled_decode(self) -> KernelLayers | None:
        """All layers under the current adapter for one compiled call a step, where that can be."""
        return self._forms(self._adapters.pairs).quick

    @property
    def compiled_prefill(self) -> KernelLayers | None:
        """The same for prompts, where they are read so too."""
        return self.compiled_decode if self._one else None

    def _forms(self, pairs: Mapping[str, LoraPair]) -> _Forms:
        if not pairs:
            return self._bare
        for known, forms in self._adapted:
            if known is pairs:
                return forms
        made = self._with(pairs)
        self._adapted = [*self._adapted[1 - _MERGED :], (pairs, made)]
        return made

    def _with(self, pairs: Mapping[str, LoraPair]) -> _Forms:
        bare = self._bare
        if not self._small:
            prompt, step = (form.with_layers(attach_lora(self._lm, form, pairs)) for form in (bare.prompt, bare.step))
            return self._both(prompt, step)
        made = {i: self._formed(layer) for i, layer in merge_lora(self._lm, bare.prompt.head_dim, pairs).items()}
        prompt = bare.prompt.with_layers({i: layer for i, (layer, _) in made.items()})
        return self._both(prompt, bare.step.with_layers({i: layer for i, (_, layer) in made.items()}))

    def _both(self, prompt: Weights, step: Weights) -> _Forms:
        return _Forms(
            prompt, step if self._int8 else prompt, build_kernel_layers(step, self.kv_dtype) if self._quick else None
        )

    def _formed(self, plain: _Plain) -> tuple[_Plain, _Plain]:
        """Plain weights for prompts and for steps."""
        prompt = plain.map_linears(DenseLinear.pack) if self._packs else plain
        if not self._int8:
            return prompt, prompt
        step = plain.map_linears(KernelInt8Linear.quantize if self._quick else TorchInt8Linear.quantize)
        return (step if self._one else prompt), step

    @property
    def shape(self) -> Weights:
        """Any of the weights, for their sizes."""
        return self._bare.prompt

    def prepare(self) -> None:
        """Merge the current adapter's pairs."""
        self._forms(self._adapters.pairs)

    def new_sequence(self) -> NativeSequence:
        """An empty text."""
        return NativeSequence(self)

    def logits(self, hidden: Tensor, step: bool = False) -> Tensor:
        """Logits [n, vocabulary] of final hidden states [n, d] under the current adapter."""
        forms, mapped = self._forms(self._adapters.pairs), self._adapters.apply_final_map(hidden)
        return (forms.step if step else forms.prompt).head(mapped)

    def plan(self, start: int, end: int) -> _Pass:
        """A forward pass over the positions from `start` to `end`."""
        w = self._bare.prompt
        turn = self.rotations(end)[start:end]  # [T, 3, h/2]
        counts = (w.heads, w.kv_heads, w.kv_heads)
        parts = [turn[:, i : i + 1].expand(-1, count, -1) for i, count in enumerate(counts)]
        return _Pass(start, end, torch.cat(parts, 1))


class NativeSequence:
    """The KV of one text: per layer [capacity, 2·K·h], keys beside values."""

    def __init__(self, reader: NativeReader) -> None:
        self._reader = reader
        self.length = 0
        self._room = torch.empty(0)  # [layers, capacity, 2·K·h]
        self._kv: list[Tensor] = []
        self._steps: dict[int, tuple[Weights, FixedStep]] = {}
        self._quick: list[tuple[KernelLayers, KernelSequence]] = []

    def prefill(self, ids: list[int], all_positions: bool = False) -> Tensor:
        """Append ids; final normed hidden states [n, d] of all of them, or [1, d] of the last."""
        if (whole := self._reader.compiled_prefill) is not None:
            return self._compiled(ids, self._reader.shape, whole, all_positions)
        return self._forward(ids, self._reader.weights(), all_positions)

    def decode(self, ids: list[int]) -> Tensor:
        """Append a decode step: a token and what was drafted after it; hidden states [n, d] of all of them."""
        w = self._reader.weights(step=True)
        if (quick := self._reader.compiled_decode) is not None:
            return self._compiled(ids, w, quick)
        if self._reader.fixed_shapes and len(ids) <= ROWS[-1]:
            return self._fixed(ids, w)
        return self._forward(ids, w, True)

    def _compiled(self, ids: list[int], w: Weights, quick: KernelLayers, all_positions: bool = True) -> Tensor:
        self._reserve(self.length + len(ids))
        stepping = next((known for steps, known in self._quick if steps is quick), None)
        if stepping is None:
            stepping = quick.bind(self._room, self._reader.rotations(self._room.shape[1]))
            self._quick = [*self._quick[-1:], (quick, stepping)]
        hidden = stepping(ids, self.length, all_positions)
        self.length += len(ids)
        return hidden.to(w.embedding.dtype)

    @torch.inference_mode()
    def _fixed(self, ids: list[int], w: Weights) -> Tensor:
        rows = next(rows for rows in ROWS if rows >= len(ids))
        self._reserve(self.length + rows)
        known = self._steps.get(rows)
        if known is None or known[0] is not w:
            rotations = self._reader.rotations(len(self._kv[0]))
            known = self._steps[rows] = (w, FixedStep(w, rotations, self._kv, rows))
        hidden = known[1](ids, self.length)
        self.length += len(ids)
        return hidden

    @torch.inference_mode()
    def _forward(self, ids: list[int], w: Weights, all_positions: bool) -> Tensor:
        reader = self._reader
        step = reader.plan(self.length, self.length + len(ids))
        self._reserve(step.end)
        x = functional.embedding(torch.tensor(ids, device=w.embedding.device), w.embedding)  # [T, d]
        for layer, kv in zip(w.layers[:-1], self._kv, strict=False):
            q = self._write(x, layer, kv, step)
            x = _mlp(x + layer.output(self._reader.attention(q, kv, step.start, step.end)), layer)
        layer, kv = w.layers[-1], self._kv[-1]
        q = self._write(x, layer, kv, step)
        if not all_positions and len(ids) > 1:  # of the last layer only the last row is asked for
            q, x, step = q[-1:], x[-1:], reader.plan(step.end - 1, step.end)
        x = _mlp(x + layer.output(self._reader.attention(q, kv, step.start, step.end)), layer)
        self.length += len(ids)
        return w.norm(x)

    def crop(self, length: int) -> None:
        """Forget everything from position `length` on."""
        self.length = min(self.length, length)

    def _write(self, x: Tensor, layer: Layer, kv: Tensor, step: _Pass) -> Tensor:
        """Queries [T, H, h] of x [T, d]; its keys and values go into the KV."""
        w = self._reader.shape
        projected = layer.qkv(layer.attention_norm(x)).float()
        turned = torch.view_as_complex(projected.view(len(x), -1, w.head_dim // 2, 2)) * step.rotation
        heads = torch.view_as_real(turned).flatten(2)  # [T, H + 2K, h]
        kv[step.start : step.end] = heads[:, w.heads :].flatten(1)
        return heads[:, : w.heads].to(x.dtype)

    def _reserve(self, end: int) -> None:
        """Room for `end` positions, in whole blocks; zeroed, since masked positions are multiplied too."""
        if self._kv and end <= len(self._kv[0]):
            return
        w = self._reader.shape
        capacity = (end // _GROW + 2) * _GROW  # room for an answer too
        shape = (len(w.layers), capacity, 2 * w.kv_heads * w.head_dim)
        grown = w.embedding.new_zeros(shape, dtype=self._reader.kv_dtype)
        for new, old in zip(grown, self._kv, strict=False):
            new[: self.length] = old[: self.length]
        self._room, self._kv = grown, list(grown)
        self._steps, self._quick = {}, []


def _mlp(x: Tensor, layer: Layer) -> Tensor:
    gate, up = layer.gate_up(layer.mlp_norm(x)).chunk(2, -1)
    return x + layer.down(functional.silu(gate) * up)
