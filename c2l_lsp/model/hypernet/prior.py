"""What `memory` knows before it sees a repository: preconditioners, bases, step sizes, gates.

A prior belongs to one base model. The shipped model has one estimated from its training repositories; for any other
model `estimate` makes one from the user's own text (P, Q from K-FAC, mean 0), which needs no training at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from c2l_lsp.errors import CheckpointError
from c2l_lsp.model.adapter.knn_lm import MixtureGate

MAX_TOKENS = 768
"""Longest piece that is read, in tokens; the rest of a longer one is left unread."""

FULL_RANK_UP_TO = 512
"""Widest final state for which the map is kept at full rank; wider models get bases of rank BASIS_RANK."""

BASIS_RANK = 128

KEY_WIDTH = 64
"""Width of the keys that recall compares: whitened, as good as all 256 of the shipped model's (−0.154 nat each)."""

_FORMAT = "c2l-memory-prior-2"
_GATE_HIDDEN = 16
_FEATURES = 5


@dataclass(frozen=True)
class PriorScalars:
    """Scalars of the prior: step sizes, spectrum clip, shrinkage (in tokens), tokens of change above which the recent
    memory counts less than half, tokens of a repository at which its own curvature counts as much as the prior's, the
    damping λ of both as a share of the mean eigenvalue, and ‖e hᵀ‖² of an average token."""

    eta: float = 0.05
    eta_recent: float = 0.05
    clip: float = 5.0
    n0: float = 2000.0
    n0_recent: float = 200.0
    fade_recent: float = 300.0
    n0_curvature: float = 4000.0
    damping: float = 0.05
    token_energy: float = 1.0


@dataclass(frozen=True)
class MemoryPrior:
    """P, Q, mean: [R, R] fp32. A [R, d], B [d, R] bases, or None for identity. `gate`: weights of the RecencyGate.

    `keys` [D, d] fp32 turns a final hidden state into a key of recall, `trust` says how far recall is believed.
    """

    P: Tensor
    Q: Tensor
    mean: Tensor
    keys: Tensor
    A: Tensor | None = None
    B: Tensor | None = None
    scalars: PriorScalars = field(default_factory=PriorScalars)
    recency_gate: dict[str, Tensor] = field(default_factory=lambda: constant_recency_gate())
    mixture_gate: MixtureGate = field(default_factory=MixtureGate)

    @property
    def R(self) -> int:
        """Rank of the map."""
        return int(self.P.shape[0])

    @property
    def recency_width(self) -> int:
        """Width of the gate's GRU."""
        return int(self.recency_gate["gate.cell.weight_hh"].shape[1])

    @property
    def digest(self) -> str:
        """Names what readings depend on: bases and keys. Step sizes may change without making readings stale."""
        digest = hashlib.blake2b(digest_size=8)
        for tensor in (self.A, self.B, self.keys):
            digest.update(b"-" if tensor is None else tensor.float().contiguous().numpy().tobytes())
        return digest.hexdigest()


def constant_recency_gate(decay: float = 0.95, write: float = 0.999) -> dict[str, Tensor]:
    """Weights of a gate that does not look at its input: γ = decay, β = write."""
    bias = torch.logit(torch.tensor([decay, write]))
    zeros = torch.zeros
    return {
        "gate.cell.weight_ih": zeros(3 * _GATE_HIDDEN, _FEATURES),
        "gate.cell.weight_hh": zeros(3 * _GATE_HIDDEN, _GATE_HIDDEN),
        "gate.cell.bias_ih": zeros(3 * _GATE_HIDDEN),
        "gate.cell.bias_hh": zeros(3 * _GATE_HIDDEN),
        "gate.head.weight": zeros(2, _GATE_HIDDEN),
        "gate.head.bias": bias,
    }


DAMPING = 0.05
"""λ of an estimated prior, as a share of the mean eigenvalue of its curvature."""


def damped_inverse(matrix: Tensor, damping: float = DAMPING) -> Tensor:
    """(M + λ I)⁻¹ with λ = damping · trace(M) / d, in fp64; fp32 out."""
    d = matrix.shape[0]
    M = matrix.double()
    M = M + (damping * M.trace() / d).clamp(min=1e-12) * torch.eye(d, dtype=torch.float64, device=M.device)
    return torch.linalg.inv(M).float()


def whitened(F_h: Tensor, width: int = KEY_WIDTH) -> Tensor:
    """The `width` strongest directions of hidden states with second moment F_h [d, d], each divided by its size.

    Without that the few directions that every state shares would decide which states are alike. A quarter of the mean
    eigenvalue is added to each, so that directions of noise are not blown up.
    """
    values, vectors = torch.linalg.eigh(F_h.double())
    sizes = (values.clamp(min=0) + 0.25 * values.mean().clamp(min=1e-12)).rsqrt()
    return (vectors * sizes).T.flip(0)[:width].float().contiguous()


def with_damping(prior: MemoryPrior, damping: float) -> MemoryPrior:
    """The same prior with another λ: P and Q are inverses of curvature + λ I, so the curvature need not be kept."""
    was = prior.scalars.damping

    def anew(inverse: Tensor) -> Tensor:
        whole = torch.linalg.inv(inverse.double())
        mean = whole.trace() / len(whole) / (1 + was)  # eigenvalue of the curvature alone
        whole = whole + (damping - was) * mean * torch.eye(len(whole), dtype=torch.float64, device=whole.device)
        return torch.linalg.inv(whole).float()

    return replace(prior, P=anew(prior.P), Q=anew(prior.Q), scalars=replace(prior.scalars, damping=damping))


@dataclass
class Curvature:
    """Running K-FAC factors of a text: F_e = Σ e eᵀ, F_h = Σ h hᵀ, S = Σ e hᵀ, all [d, d] fp64, and the count."""

    F_e: Tensor
    F_h: Tensor
    S: Tensor
    energy: float = 0.0
    n: int = 0

    @classmethod
    def zeros(cls, d: int) -> Curvature:
        """Nothing seen yet."""
        F_e, F_h, S = torch.zeros(3, d, d, dtype=torch.float64)
        return cls(F_e, F_h, S)

    def add(self, e: Tensor, h: Tensor) -> None:
        """Take in a batch of positions: e, h [N, d]."""
        self.F_e += (e.T @ e).double().cpu()
        self.F_h += (h.T @ h).double().cpu()
        self.S += (e.T @ h).double().cpu()
        self.energy += float((e.square().sum(1) * h.square().sum(1)).sum())
        self.n += len(e)


def estimate(seen: Curvature, *, scalars: PriorScalars | None = None, means: Iterable[Tensor] = ()) -> MemoryPrior:
    """A prior from curvature. `means` are S/n [d, d] of training repositories; without any the mean is 0.

    Wider models than FULL_RANK_UP_TO get bases: the leading singular directions of the preconditioned gradient.
    """
    if seen.n == 0:
        raise CheckpointError("A prior needs at least one position of text.")
    scalars = replace(scalars or PriorScalars(), token_energy=max(seen.energy / seen.n, 1e-12))
    P, Q = damped_inverse(seen.F_e / seen.n), damped_inverse(seen.F_h / seen.n)
    keys = whitened(seen.F_h / seen.n)
    gathered = list(means)
    mean = torch.stack(gathered).mean(0).float() if gathered else torch.zeros_like(P)
    d = P.shape[0]
    if d <= FULL_RANK_UP_TO:
        return MemoryPrior(P, Q, mean, keys, scalars=scalars)
    U, _, Vh = torch.linalg.svd(P @ (seen.S / seen.n).float() @ Q, full_matrices=False)
    B, A = U[:, :BASIS_RANK].contiguous(), Vh[:BASIS_RANK].contiguous()
    F_e, F_h = B.double().T @ (seen.F_e / seen.n) @ B.double(), A.double() @ (seen.F_h / seen.n) @ A.double().T
    return MemoryPrior(damped_inverse(F_e), damped_inverse(F_h), B.T @ mean @ A.T, keys, A, B, scalars)


def save(prior: MemoryPrior, path: Path, base: str, note: str = "") -> None:
    """Write a prior as safetensors; scalars, the base's digest and a note on its data go into the metadata."""
    from safetensors.torch import save_file

    scalars = {"steps": json.dumps(asdict(prior.scalars)), "trust": json.dumps(prior.mixture_gate.to_list())}
    metadata = {"format": _FORMAT, "base": base, **scalars, "note": note}
    save_file({name: tensor.contiguous() for name, tensor in to_tensors(prior).items()}, path, metadata=metadata)


def load(path: Path, base: str) -> MemoryPrior:
    """Read a prior. CheckpointError if it is of another base or format, incomplete, or not finite."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"The memory prior {path.name} cannot be read: {error}.") from error
    if metadata.get("format") != _FORMAT:
        raise CheckpointError(f"{path.name} is not a memory prior of format {_FORMAT}.")
    if metadata.get("base") != base:
        raise CheckpointError(f"The memory prior {path.name} belongs to another base model.")
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise CheckpointError(f"The memory prior {path.name} holds numbers that are not finite.")
    return from_tensors(tensors, _steps_in(metadata), _trust_in(metadata))


def _steps_in(metadata: Mapping[str, str]) -> PriorScalars:
    """The scalars by their names, so that a file from before one of them existed is read with its default."""
    try:
        return PriorScalars(**json.loads(metadata["steps"]))
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"The memory prior's step sizes cannot be read: {error}.") from error


def _trust_in(metadata: Mapping[str, str]) -> MixtureGate:
    try:
        return MixtureGate.from_list(json.loads(metadata["trust"]))
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"The memory prior's trust cannot be read: {error}.") from error


def to_tensors(prior: MemoryPrior) -> dict[str, Tensor]:
    """A prior as named tensors alone, for a state that must carry its own."""
    tensors = {"P": prior.P, "Q": prior.Q, "mean": prior.mean, "keys": prior.keys, **prior.recency_gate}
    tensors["trust"] = torch.tensor(prior.mixture_gate.to_list(), dtype=torch.float64)
    tensors |= {name: t for name, t in (("A", prior.A), ("B", prior.B)) if t is not None}
    names = sorted(asdict(prior.scalars))
    return tensors | {"steps": torch.tensor([getattr(prior.scalars, name) for name in names], dtype=torch.float64)}


def from_tensors(
    tensors: Mapping[str, Tensor], steps: PriorScalars | None = None, trust: MixtureGate | None = None
) -> MemoryPrior:
    """The prior of `to_tensors`, its scalars from `steps` and `trust` if given. CheckpointError if any is missing."""
    try:
        if steps is None:
            steps = PriorScalars(**dict(zip(sorted(asdict(PriorScalars())), tensors["steps"].tolist(), strict=True)))
        gate = {name: tensor for name, tensor in tensors.items() if name.startswith("gate.")}
        matrices = (tensors["P"], tensors["Q"], tensors["mean"], tensors["keys"], tensors.get("A"), tensors.get("B"))
        return MemoryPrior(*matrices, steps, gate, trust or MixtureGate.from_list(tensors["trust"].tolist()))
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"A stored memory prior is incomplete: {error}.") from error


def check(prior: MemoryPrior, d: int) -> None:
    """CheckpointError unless a prior that was kept with a state fits a model of width `d` and is finite."""
    R, found = prior.R, to_tensors(prior)
    wanted: dict[str, tuple[int, ...]] = dict.fromkeys(("P", "Q", "mean"), (R, R))
    wanted |= {name: tuple(tensor.shape) for name, tensor in constant_recency_gate().items()}
    wanted |= {"keys": (prior.keys.shape[0], d), "A": (R, d), "B": (d, R)}
    if prior.A is None and prior.B is None and d == R:  # full rank: no bases
        del wanted["A"], wanted["B"]
    for name, shape in wanted.items():
        if name not in found or found[name].dtype != torch.float32 or tuple(found[name].shape) != shape:
            raise CheckpointError(f"A stored memory prior's {name} does not fit the model.")
    if found.keys() != {*wanted, "steps", "trust"}:
        raise CheckpointError("A stored memory prior holds what does not belong to it.")
    if not all(bool(tensor.isfinite().all()) for tensor in found.values()):
        raise CheckpointError("A stored memory prior holds numbers that are not finite.")
