"""The trained network: a head, with a GRU for `evo`, from the states of a batch of repositories to their LoRA pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from c2l_lab.train.hypernet.batched_lora import Pairs
from c2l_lab.train.hypernet.data import Repo
from c2l_lab.train.hypernet.recipe import Recipe
from c2l_lsp.model.hypernet.checkpoint import Checkpoint, Manifest
from c2l_lsp.model.hypernet.encoder import pool_files
from c2l_lsp.model.hypernet.gru import CommitGRU
from c2l_lsp.model.hypernet.lora_head import Code2LoRAHead
from c2l_lsp.model.lm.base import BaseModel

_MOMENTUM = 0.05  # of the running mean of context vectors, which changes while the GRU is trained


@dataclass(frozen=True)
class State:
    """Input of the network: a repository embedding [2·hidden], and for `evo` the later diffs [T, 2·hidden]."""

    repository: Tensor
    diffs: Tensor


def state_of(repo: Repo, files: Tensor, age: int) -> State:
    """The state of the files in a mask [F], for `evo` after the first `age` diffs."""
    return State(pool_files(repo.files[files]), repo.diffs[:age])


class Network(nn.Module):
    """Head and GRU of a recipe. The names of their weights are those in checkpoints."""

    def __init__(self, model: BaseModel, recipe: Recipe, width: int) -> None:
        """Initialise the weights from the recipe's seed; `width` is the width of an embedding."""
        super().__init__()
        torch.manual_seed(recipe.seed)
        gru = recipe.gru(width)
        self.recipe, self.scale = recipe, recipe.alpha / recipe.rank
        self.layers = int(model.lm.config.num_hidden_layers)
        self.head = Code2LoRAHead(recipe.head(model, gru.hidden_dim if gru else width))
        self.gru = CommitGRU(gru) if gru else None
        if recipe.zero_start:
            for linear in self.head.heads_B.children():
                nn.init.zeros_(linear.weight)  # type: ignore[arg-type]
                nn.init.zeros_(linear.bias)  # type: ignore[arg-type]

    @torch.no_grad()
    def initialise(self, repositories: Sequence[Repo]) -> None:
        """Set the first layers and the mean context vector from the training embeddings, before the first step."""
        whole = torch.stack([pool_files(r.files) for r in repositories])
        first = self.gru.repo_init_proj[0] if self.gru else self.head.trunk[0]
        if self.recipe.standardised:
            _standardise(first, whole, self.recipe.components)
            if self.gru:
                diffs = torch.cat([r.diffs for r in repositories])
                _standardise(self.gru.diff_proj[0], diffs, self.recipe.components)
        if self.recipe.residual:
            device = self.head.context_mean.device
            states = [State(w, r.diffs) for w, r in zip(whole, repositories, strict=True)]
            self.head.context_mean.copy_(self.contexts(states).mean(0).to(device))

    def contexts(self, states: Sequence[State]) -> Tensor:
        """Context vectors [N, D] of states: their embeddings, or for `evo` the GRU's output after all their diffs."""
        device = next(self.head.parameters()).device
        repositories = torch.stack([s.repository for s in states]).to(device)
        if self.gru is None:
            return repositories
        h = self.gru.initial_state(repositories)
        ages = torch.tensor([len(s.diffs) for s in states], device=device)
        if int(ages.max()):
            padded = nn.utils.rnn.pad_sequence([s.diffs for s in states], batch_first=True).to(device)
            rolled = torch.cat([h[:, None], self.gru.unroll(padded, h)], dim=1)  # [N, T + 1, H]
            h = rolled[torch.arange(len(states), device=device), ages]
        return self.gru.context(h)

    def forward(self, states: Sequence[State]) -> Pairs:
        """The pairs of states. While `evo` is trained, the mean context vector follows their contexts."""
        contexts = self.contexts(states)
        if self.training and self.recipe.residual and self.gru is not None:
            self.head.context_mean.lerp_(contexts.detach().mean(0), _MOMENTUM)
        pairs: Pairs = self.head(contexts)
        return pairs

    def checkpoint(self, model: BaseModel, training: dict[str, bool | float | str]) -> Checkpoint:
        """The weights as a checkpoint, with notes on the training."""
        manifest = Manifest(
            kind=self.recipe.kind,
            head=self.head.config,
            gru=self.gru.config if self.gru else None,
            alpha=self.recipe.alpha,
            base=model.id.rpartition("/")[2] or model.id,
            base_digest=model.digest,
            training=training,
        )
        return Checkpoint.from_modules(manifest, self.head, self.gru)


@torch.no_grad()
def _standardise(linear: nn.Module, inputs: Tensor, components: int) -> None:
    """Replace W and b so that the layer maps x to what it mapped its standardised principal components to.

    The `components` leading components of `inputs` [N, in] are scaled to the mean square of x standardised; the others
    are noise that would tell the training repositories apart. 0 keeps all: the layer then maps (x − mean) / std.
    """
    assert isinstance(linear, nn.Linear)  # noqa: S101 - the first layer of a trunk or projection
    inputs = inputs.to(linear.weight.device)
    mean, deviation = inputs.mean(0), inputs.std(0).clamp(min=1e-6)
    linear.weight.div_(deviation)
    if components:
        _, s, Vh = torch.linalg.svd((inputs - mean) / deviation, full_matrices=False)
        kept = min(components, int((s > 1e-4 * s[0]).sum()))
        scale = (len(inputs) * inputs.shape[1] / kept) ** 0.5 / s[:kept]
        whiten = (Vh[:kept].T * scale) @ Vh[:kept] / deviation  # x − mean → equally large components
        linear.weight.copy_(linear.weight * deviation @ whiten)
    linear.bias.sub_(linear.weight @ mean)
