"""Decode steps of fixed shapes stay correct when they are replayed from a recording.

`Tape` stands in for a CUDA graph: a replay calls the recorded operators on the recorded tensors, with every Python
number as it was during the recording.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM

from c2l_lsp.model.runtime.cuda_graph import ROWS, FixedStep
from c2l_lsp.model.runtime.fusion import fuse_projections
from c2l_lsp.model.runtime.weights import RotaryTable, Weights

CAPACITY = 64


class Tape(TorchDispatchMode):
    """Records operators with their arguments and results, and repeats them on the same memory."""

    def __init__(self) -> None:
        super().__init__()
        self.recordings = 0
        self._calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self._calls.append((func, args, kwargs or {}, result))
        return result

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        self.recordings += 1
        with self:
            run()
        return self._replay

    def _replay(self) -> None:
        for func, args, kwargs, recorded in self._calls:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(recorded), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():  # neither a view nor in place
                    old.copy_(new)


@pytest.fixture(scope="module")
def weights() -> Weights:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=100, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.2,
    )  # fmt: skip
    return fuse_projections(LlamaForCausalLM(config).eval().requires_grad_(False))


def empty_cache(w: Weights) -> list[Tensor]:
    return list(torch.zeros(len(w.layers), CAPACITY, 2 * w.kv_heads * w.head_dim))


def pair(w: Weights, rows: int, tape: Tape) -> tuple[FixedStep, FixedStep, list[Tensor], list[Tensor]]:
    """A replayed step and a plain one, each with its KV cache."""
    rotations, recorded_kv, plain_kv = RotaryTable(w)(CAPACITY), empty_cache(w), empty_cache(w)
    replayed = FixedStep(w, rotations, recorded_kv, rows, tape.record)
    return replayed, FixedStep(w, rotations, plain_kv, rows), recorded_kv, plain_kv


@torch.inference_mode()
@pytest.mark.parametrize("rows", ROWS)
def test_replayed_steps_equal_plain_steps(weights: Weights, rows: int) -> None:
    tape = Tape()
    replayed, plain, recorded_kv, plain_kv = pair(weights, rows, tape)
    start = 0
    for count in (rows, 1, max(1, rows - 1), rows, 1):
        ids = [(7 * position + 3) % 100 for position in range(start, start + count)]
        assert torch.equal(replayed(ids, start), plain(ids, start))
        start += count
    replayed([99], 2), plain([99], 2)  # back, as after a rejected draft
    assert torch.equal(torch.stack(recorded_kv), torch.stack(plain_kv))
    assert tape.recordings == 1


@torch.inference_mode()
def test_inputs_and_outputs_keep_their_memory(weights: Weights) -> None:
    replayed, _, kv, _ = pair(weights, 5, Tape())

    def addresses() -> list[int]:
        return [tensor.data_ptr() for tensor in (replayed._tokens, replayed._positions, replayed._out, *kv)]

    first = replayed([1, 2, 3], 0)
    before, kept = addresses(), first.clone()
    second = replayed([4, 5], 3)
    assert addresses() == before
    assert replayed._tokens.tolist() == [4, 5, 5, 5, 5]
    assert replayed._positions.tolist() == [3, 4, 5, 6, 7]
    assert torch.equal(first, kept), "a result must not change with the next step"
    assert not torch.equal(first[:2], second)


@torch.inference_mode()
def test_padding_is_not_visible_to_later_tokens(weights: Weights) -> None:
    """Padded positions hold keys of a repeated token until real ones overwrite them."""
    padded, exact, _, _ = pair(weights, 9, Tape())
    single = FixedStep(weights, RotaryTable(weights)(CAPACITY), empty_cache(weights), 1)
    ids = [5, 17, 31, 2]
    one_by_one = torch.cat([single([token], position) for position, token in enumerate(ids)])
    torch.testing.assert_close(torch.cat([padded([token], i) for i, token in enumerate(ids)]), one_by_one)
    torch.testing.assert_close(exact(ids, 0), one_by_one)


def test_replay_repeats_python_numbers_as_a_graph_does() -> None:
    """The stand-in detects a step whose operators depend on a Python number."""
    source, out, offset = torch.arange(4.0), torch.zeros(1), 0

    def run() -> None:
        out.copy_(source[offset : offset + 1])

    replay = Tape().record(run)
    offset = 2
    replay()
    assert out.item() == 0.0
