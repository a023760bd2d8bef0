"""The head and the GRU of Code2LoRA against their formulas, and the hypernetworks `static` and `evo`."""

from __future__ import annotations

import math
from copy import deepcopy

import pytest
import torch
from torch import Tensor

from c2l_lsp.errors import AdapterError, StateError
from c2l_lsp.model.hypernet.code2lora import Binding, Evo, Static
from c2l_lsp.model.hypernet.encoder import pool_diff, pool_files
from c2l_lsp.model.hypernet.gru import CommitGRU, GRUConfig
from c2l_lsp.model.hypernet.lora_head import Code2LoRAHead, HeadConfig, expand_to_layers
from c2l_lsp.model.hypernet.protocol import RepoState, StateChange

torch.set_num_threads(1)

QWEN_15B = {
    "q_proj": (1536, 1536), "k_proj": (1536, 256), "v_proj": (1536, 256), "o_proj": (1536, 1536),
    "gate_proj": (1536, 8960), "up_proj": (1536, 8960), "down_proj": (8960, 1536),
}  # fmt: skip
SMALL = {"q_proj": (6, 10), "down_proj": (9, 6)}


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def head(seed: int = 0, **changes: int) -> Code2LoRAHead:
    torch.manual_seed(seed)
    made = Code2LoRAHead(HeadConfig(type_dims=SMALL, **{"input_dim": 8, "hidden_dim": 12, "rank": 3, **changes}))
    for t, value in zip(sorted(SMALL), (-0.5, -20.0), strict=True):  # both sides of the clamp
        made.log_scale_A[t].data.fill_(value)
    return made


def gru(seed: int = 0) -> CommitGRU:
    torch.manual_seed(seed)
    made = CommitGRU(GRUConfig(diff_input_dim=8, repo_state_dim=8, hidden_dim=8))
    for parameter in made.parameters():  # no parameter at a value that hides a mistake (LayerNorm starts at 1 and 0)
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return made


def test_parameter_counts_and_names_at_the_published_shape() -> None:
    with torch.device("meta"):
        big, recurrent = Code2LoRAHead(HeadConfig(type_dims=QWEN_15B)), CommitGRU(GRUConfig())
    assert count(big) == 679_090_190
    assert count(recurrent) == 33_583_104
    shapes = {name: tuple(tensor.shape) for name, tensor in big.state_dict().items()}
    assert shapes["trunk.0.weight"] == (1024, 2048)
    assert shapes["trunk.2.bias"] == (1024,)
    assert shapes["heads_A.down_proj.weight"] == (143_360, 1024)
    assert shapes["heads_B.k_proj.bias"] == (4096,)
    assert shapes["log_scale_A.q_proj"] == shapes["log_scale_B.up_proj"] == ()
    assert len(shapes) == 4 + 7 * 6
    assert {name.rsplit(".", 1)[0] for name in recurrent.state_dict()} == {
        "diff_proj.0", "diff_proj.1", "repo_init_proj.0", "repo_init_proj.2", "gru", "output_norm",
    }  # fmt: skip


def test_head_with_tasks_has_a_task_embedding_and_a_wider_trunk() -> None:
    made = head(num_tasks=2, task_dim=5)
    assert made.task_embedding is not None
    assert made.task_embedding.weight.shape == (2, 5)
    assert made.trunk[0].weight.shape == (12, 13)
    assert "task_embedding.weight" not in head().state_dict()


# ---- the formulas, written down again in float64 ----------------------------------------------------------------


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def layer_norm(x: Tensor, p: dict[str, Tensor], name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * p[f"{name}.weight"] + p[f"{name}.bias"]


def linear(x: Tensor, p: dict[str, Tensor], name: str) -> Tensor:
    return torch.einsum("ni,oi->no", x, p[f"{name}.weight"]) + p[f"{name}.bias"]


def reference_head(p: dict[str, Tensor], ctx: Tensor, rank: int = 3) -> dict[str, tuple[Tensor, Tensor]]:
    h = gelu(linear(gelu(linear(ctx, p, "trunk.0")), p, "trunk.2"))
    h = h / h.pow(2).sum(-1, keepdim=True).sqrt() * math.sqrt(h.shape[-1])
    pairs = {}
    for t, (width_in, width_out) in SMALL.items():
        A = torch.tanh(linear(h, p, f"heads_A.{t}")).reshape(len(ctx), rank, width_in)
        B = torch.tanh(linear(h, p, f"heads_B.{t}")).reshape(len(ctx), width_out, rank)
        scale_A = p[f"log_scale_A.{t}"].exp().clamp(1e-5, 0.3)
        pairs[t] = (A * scale_A, B * p[f"log_scale_B.{t}"].exp().clamp(1e-5, 0.3))
    return pairs


def reference_step(p: dict[str, Tensor], e: Tensor, h: Tensor) -> Tensor:
    x = layer_norm(linear(e, p, "diff_proj.0"), p, "diff_proj.1")
    of_x = (x @ p["gru.weight_ih_l0"].T + p["gru.bias_ih_l0"]).chunk(3, dim=-1)
    of_h = (h @ p["gru.weight_hh_l0"].T + p["gru.bias_hh_l0"]).chunk(3, dim=-1)
    r = 1 / (1 + torch.exp(-(of_x[0] + of_h[0])))
    z = 1 / (1 + torch.exp(-(of_x[1] + of_h[1])))
    n = torch.tanh(of_x[2] + r * of_h[2])
    return (1 - z) * n + z * h


def doubles(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().double().requires_grad_() for name, p in module.named_parameters()}


def lora_loss(pairs: dict[str, tuple[Tensor, Tensor]], x: dict[str, Tensor], y: dict[str, Tensor]) -> Tensor:
    """Squared error of y = (alpha/rank)·(x Aᵀ) Bᵀ with alpha/rank = 2 against a target, over all types."""
    return sum(
        ((2.0 * (x[t] @ A.transpose(1, 2)) @ B.transpose(1, 2) - y[t]) ** 2).sum() for t, (A, B) in pairs.items()
    )


@pytest.mark.parametrize("seed", range(3))
def test_head_forward_and_one_gradient_step_equal_the_formulas(seed: int) -> None:
    made, ctx = head(seed), torch.randn(4, 8)
    x = {t: torch.randn(4, 5, i) for t, (i, _) in SMALL.items()}
    y = {t: torch.randn(4, 5, o) for t, (_, o) in SMALL.items()}
    p = doubles(made)
    expected = reference_head(p, ctx.double())
    pairs = made(ctx)
    for t in SMALL:
        assert pairs[t][0].shape == (4, 3, SMALL[t][0])
        assert pairs[t][1].shape == (4, SMALL[t][1], 3)
        torch.testing.assert_close(pairs[t], tuple(m.float() for m in expected[t]), atol=1e-6, rtol=1e-5)
    lora_loss(expected, {t: v.double() for t, v in x.items()}, {t: v.double() for t, v in y.items()}).backward()
    lora_loss(pairs, x, y).backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None
        after, should = parameter - 0.01 * parameter.grad, p[name] - 0.01 * p[name].grad
        torch.testing.assert_close(after, should.float(), atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_head_gradient_equals_finite_differences() -> None:
    """Checks the reference: autograd would agree if both had the same error."""
    made = head(3).double()
    ctx, parameter = torch.randn(2, 8, dtype=torch.float64), made.trunk[0].weight
    made.log_scale_A["q_proj"].data.fill_(-2.0)

    def loss() -> Tensor:
        return sum((A.sin().sum() + B.cos().sum()) for A, B in made(ctx).values())

    loss().backward()
    direction = torch.randn_like(parameter)
    with torch.no_grad():
        ends = []
        for sign in (1, -1):
            parameter.add_(sign * 1e-6 * direction)
            ends.append(loss())
            parameter.sub_(sign * 1e-6 * direction)
    slope = (ends[0] - ends[1]) / 2e-6
    torch.testing.assert_close(slope, (parameter.grad * direction).sum(), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_gru_unroll_and_one_gradient_step_equal_the_formulas(seed: int) -> None:
    made, repository, diffs = gru(seed), torch.randn(2, 8), torch.randn(2, 4, 8)
    p = doubles(made)
    h = layer_norm(gelu(linear(repository.double(), p, "repo_init_proj.0")), p, "repo_init_proj.2")
    torch.testing.assert_close(made.initial_state(repository), h.float(), atol=1e-5, rtol=1e-5)
    for t in range(4):
        h = reference_step(p, diffs[:, t].double(), h)
    ctx = layer_norm(h, p, "output_norm")
    states = made.unroll(diffs, made.initial_state(repository))
    torch.testing.assert_close(made.context(states[:, -1]), ctx.float(), atol=1e-5, rtol=1e-5)
    ctx.pow(3).mean().backward()
    made.context(states[:, -1]).pow(3).mean().backward()
    for name, parameter in made.named_parameters():
        after, should = parameter - 0.1 * parameter.grad, p[name] - 0.1 * p[name].grad
        torch.testing.assert_close(after, should.float(), atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_step_equals_unroll_and_rows_are_independent() -> None:
    made, h, diffs = gru(), torch.randn(3, 8), torch.randn(3, 2, 8)
    stepped = made.step(diffs[:, 1], made.step(diffs[:, 0], h))
    torch.testing.assert_close(stepped, made.unroll(diffs, h)[:, -1])
    alone = torch.cat([made.step(diffs[i : i + 1, 0], h[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(alone, made.step(diffs[:, 0], h))


def test_contexts_of_several_vectors_are_max_pooled() -> None:
    made, ctx = head(), torch.randn(2, 5, 8)
    torch.testing.assert_close(made(ctx)["q_proj"], made(ctx.max(dim=1).values)["q_proj"])


def test_task_changes_the_weights_and_defaults_to_zero() -> None:
    made, ctx = head(num_tasks=2, task_dim=5), torch.randn(2, 8)
    zero, both = made(ctx)["q_proj"][0], made(ctx, torch.tensor([0, 1]))["q_proj"][0]
    torch.testing.assert_close(both[0], zero[0])
    assert not torch.allclose(both[1], zero[1])


def test_expand_to_layers_names_every_layer() -> None:
    pairs = {"q_proj": (torch.ones(3, 6), torch.ones(10, 3)), "down_proj": (torch.ones(3, 9), torch.ones(6, 3))}
    named = expand_to_layers(pairs, layers=2, scale=2.0)
    assert set(named) == {
        "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj",
        "model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj",
    }  # fmt: skip
    first = named["model.layers.0.self_attn.q_proj"]
    assert first.scale == 2.0
    assert all(torch.equal(first.A, pair.A) for name, pair in named.items() if "q_proj" in name)
    assert first.B is named["model.layers.1.self_attn.q_proj"].B
    with pytest.raises(AdapterError, match="c_attn"):
        expand_to_layers({"c_attn": pairs["q_proj"]}, 1, 1.0)


# ---- behind Hypernetwork ----------------------------------------------------------------------------------------


class FakeEncoder:
    """Vectors are a function of the text. A diff has one window per line, a blank one none."""

    hidden, digest = 4, "fake"

    def files(self, texts: list[str]) -> Tensor:
        return torch.cat([torch.empty(0, 4), *(self._vector(text)[None] for text in texts)])

    def diff_chunks(self, diffs: list[str]) -> list[Tensor]:
        return [self.files([line for line in diff.splitlines() if line.strip()]) for diff in diffs]

    def _vector(self, text: str) -> Tensor:
        return torch.randn(4, generator=torch.Generator().manual_seed(sum(text.encode())))


BINDING = Binding(base="base", layers=2, alpha=6.0, weights="w")


def static() -> Static:
    return Static(head(), FakeEncoder(), BINDING)  # type: ignore[arg-type]


def evo() -> Evo:
    return Evo(head(), gru(), FakeEncoder(), BINDING)  # type: ignore[arg-type]


def change(net: Static | Evo, added: str = "", removed: str = "", diffs: list[str] | None = None, first: bool = False):
    def read(words: str) -> list:
        return net.embed([chunk for word in words.split() for chunk in net.chunks(word)])

    return StateChange(
        read(added), read(removed), net.embed([p for d in diffs or [] for p in net.diff_chunks(d)]), first=first
    )


def test_file_is_one_chunk_named_by_its_content() -> None:
    net = evo()
    assert net.chunks("") == []
    (chunk,) = net.chunks("a = 1\n")
    assert chunk == net.chunks("a = 1\n")[0]
    assert chunk.key != net.diff_chunks("a = 1\n")[0].key
    readings = net.embed([*net.diff_chunks("x\ny"), chunk])
    assert readings[0]["chunks"].shape == (2, 4)
    assert readings[1]["file"].shape == (4,)
    assert static().diff_chunks("x") == []


def test_static_state_is_a_function_of_the_files_alone() -> None:
    net = static()
    (straight,) = net.update([net.empty_state()], [change(net, "a b b c", first=True)])
    (state,) = net.update([net.empty_state()], [change(net, "d c", first=True)])
    (state,) = net.update([state], [change(net, "b e b", removed="d")])
    (state,) = net.update([state], [change(net, "a", removed="e")])
    assert torch.equal(state.tensors["keys"], straight.tensors["keys"])
    assert torch.equal(state.tensors["files"], straight.tensors["files"])
    assert net.generate(state).digest == net.generate(straight).digest
    torch.testing.assert_close(pool_files(state.tensors["files"]), pool_files(net.encoder.files(["a", "b", "b", "c"])))


def test_static_adapter_is_the_head_of_the_embedding() -> None:
    net = static()
    (state,) = net.update([net.empty_state()], [change(net, "a b", first=True)])
    adapter = net.generate(state)
    A, B = net.head(pool_files(net.encoder.files(["a", "b"]))[None])["down_proj"]
    pair = adapter.pairs["model.layers.1.mlp.down_proj"]
    assert torch.equal(pair.A, A[0])
    assert torch.equal(pair.B, B[0])
    assert pair.scale == 2.0
    assert (adapter.base, adapter.kind) == ("base", "static")


def test_adapter_of_an_empty_state_changes_nothing() -> None:
    for net in (static(), evo()):
        assert net.generate(net.empty_state()).pairs == {}
    net = static()
    (state,) = net.update([net.empty_state()], [change(net, "a")])
    (state,) = net.update([state], [change(net, removed="a")])
    assert net.generate(state).pairs == {}


def test_removal_of_an_unknown_file_is_refused() -> None:
    net = static()
    with pytest.raises(StateError, match="not in the adapter's state"):
        net.update([net.empty_state()], [change(net, removed="a")])


def test_evo_starts_from_the_snapshot_and_steps_once_per_change() -> None:
    net = evo()
    (state,) = net.update([net.empty_state()], [change(net, "a b", first=True)])
    h0 = net.gru.initial_state(pool_files(net.encoder.files(["a", "b"]))[None])
    torch.testing.assert_close(state.tensors["h"], h0[0])
    (state,) = net.update([state], [change(net, "c", removed="a", diffs=["x\ny", "z"])])
    e = pool_diff(torch.cat(net.encoder.diff_chunks(["x\ny", "z"])))
    h1 = net.gru.step(e[None], h0)
    torch.testing.assert_close(state.tensors["h"], h1[0])
    assert set(state.tensors) == {"h"}
    (same,) = net.update([state], [change(net, "d")])
    assert torch.equal(same.tensors["h"], state.tensors["h"])
    torch.testing.assert_close(
        net.generate(state).pairs["model.layers.0.self_attn.q_proj"].A, net.head(net.gru.context(h1))["q_proj"][0][0]
    )


def test_evo_follows_the_files_until_the_first_diff() -> None:
    """Before the first diff, files may be added in parts, removed as held-out files, or edited without a diff."""
    net = evo()
    (whole,) = net.update([net.empty_state()], [change(net, "a b c", first=True)])
    (part,) = net.update([net.empty_state()], [change(net, "c d", first=True)])
    (part,) = net.update([part], [change(net, "b a", removed="d")])
    assert torch.equal(part.tensors["h"], whole.tensors["h"])
    (gone,) = net.update([whole], [change(net, removed="a b c", first=True)])
    assert gone.tensors == {}
    with pytest.raises(StateError, match="not in the adapter's state"):
        net.update([whole], [change(net, removed="x")])


def test_evo_steps_on_the_first_commits_diff_with_its_snapshot() -> None:
    net = evo()
    (once,) = net.update([net.empty_state()], [change(net, "a b", diffs=["x"], first=True)])
    (twice,) = net.update([net.empty_state()], [change(net, "a b", first=True)])
    (twice,) = net.update([twice], [change(net, diffs=["x"])])
    assert torch.equal(once.tensors["h"], twice.tensors["h"])
    (ignored,) = net.update([once], [change(net, "d", removed="x", first=True)])
    assert torch.equal(ignored.tensors["h"], once.tensors["h"])
    (bare,) = net.update([net.empty_state()], [change(net, diffs=["x"])])
    h0 = net.gru.initial_state(torch.zeros(1, 8))
    torch.testing.assert_close(bare.tensors["h"], net.gru.step(pool_diff(net.encoder.files(["x"]))[None], h0)[0])


def test_evo_steps_on_a_diff_too_short_to_embed() -> None:
    """A diff under 16 tokens has a zero embedding, and its commit is a step like any other."""
    net = evo()
    (state,) = net.update([net.empty_state()], [change(net, "a", first=True)])
    (after,) = net.update([state], [change(net, diffs=[" "])])
    torch.testing.assert_close(after.tensors["h"], net.gru.step(torch.zeros(1, 8), state.tensors["h"][None])[0])


def test_evo_batches_folders_into_one_gru_call(monkeypatch: pytest.MonkeyPatch) -> None:
    net, calls = evo(), []
    changes = [change(net, "a", first=True), change(net, "b", diffs=["x"], first=True), change(net)]
    states = [net.empty_state(), net.empty_state(), RepoState({"h": torch.ones(8)})]
    alone = [net.update([s], [c])[0] for s, c in zip(states, changes, strict=True)]
    step = net.gru.step
    monkeypatch.setattr(net.gru, "step", lambda d, h: calls.append(len(d)) or step(d, h))
    states = net.update(states, changes)
    for one, other in zip(states, alone, strict=True):
        torch.testing.assert_close(one.tensors["h"], other.tensors["h"])
    net.update(states, [change(net, diffs=[w]) for w in "xyz"])
    assert calls == [1, 3]


def test_update_does_not_change_the_old_state() -> None:
    for net in (static(), evo()):
        (old,) = net.update([net.empty_state()], [change(net, "a b", first=True)])
        copy = deepcopy(old)
        net.update([old], [change(net, "c", removed="a", diffs=["x"])])
        assert all(torch.equal(old.tensors[name], copy.tensors[name]) for name in copy.tensors)
        assert old.tensors.keys() == copy.tensors.keys()


def test_digest_depends_on_kind_weights_base_and_encoder() -> None:
    assert static().digest == static().digest
    other = Static(head(), FakeEncoder(), Binding(base="base", layers=2, alpha=6.0, weights="v"))  # type: ignore[arg-type]
    assert len({static().digest, evo().digest, other.digest}) == 3
