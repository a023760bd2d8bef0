"""The prior of `memory`: what it knows of a base model before it reads a repository.

A prior belongs to one base model. The shipped models have priors that were estimated from their training repositories
(`c2l-lab train hypernet`). For any other model `estimate` computes one from the user's own text: P and Q from its
curvature, mean 0, default scalars.
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

MAX_TOKENS = 768
"""Tokens of a chunk that are embedded; the rest of a longer one is ignored."""

FULL_RANK_UP_TO = 512
"""Width of the final hidden state up to which the final map has full rank. Wider models get bases of BASIS_RANK."""

BASIS_RANK = 128

KEY_WIDTH = 64
"""Width of kNN keys. Whitened, 64 dimensions gain as much as all 256 of c2l-nano (−0.154 nat/token either way)."""

_FORMAT = "c2l-memory-prior-2"


@dataclass(frozen=True)
class PriorScalars:
    """The scalars of a prior; `gradient_memory` has the formulas.

    The field names are stored in files, in the metadata `steps`.
    """

    eta: float = 0.05  # η: step size
    eta_recent: float = 0.05  # η_rec: step size of the recent memory
    decay: float = 0.95  # γ: what is left of the recent memory after a batch of changes
    clip: float = 5.0  # largest singular value of a step, as a multiple of the median
    n0: float = 2000.0  # tokens of a repository at which the step has half its size
    n0_recent: float = 200.0  # tokens of change at which the step of the recent memory has half its size
    fade_recent: float = 300.0  # tokens of change above which the recent memory fades to less than half
    n0_curvature: float = 4000.0  # tokens of a repository at which its curvature has half the weight
    damping: float = 0.05  # λ, as a share of the mean eigenvalue of the curvature
    token_energy: float = 1.0  # mean of ‖e_i h_iᵀ‖² over tokens


@dataclass(frozen=True)
class MemoryPrior:
    """The tensors and scalars of a prior, all fp32 on the CPU.

    | field | shape | meaning |
    |---|---|---|
    | P, Q | [R, R] | damped inverses of the curvature: preconditioners |
    | mean | [R, R] | S̄, the mean of S/n over training repositories |
    | keys | [D, d] | W of the kNN memory: final hidden state → key |
    | A, B | [R, d], [d, R] | bases of a wide model; None for the identity (R = d) |
    """

    P: Tensor
    Q: Tensor
    mean: Tensor
    keys: Tensor
    A: Tensor | None = None
    B: Tensor | None = None
    scalars: PriorScalars = field(default_factory=PriorScalars)

    @property
    def R(self) -> int:
        """Rank of the final map."""
        return int(self.P.shape[0])

    @property
    def digest(self) -> str:
        """Identifies what embeddings depend on: A, B and keys. All else may change without discarding embeddings."""
        digest = hashlib.blake2b(digest_size=8)
        for tensor in (self.A, self.B, self.keys):
            digest.update(b"-" if tensor is None else tensor.float().contiguous().numpy().tobytes())
        return digest.hexdigest()


DAMPING = 0.05
"""λ of an estimated prior, as a share of the mean eigenvalue of the curvature."""


def damped_inverse(matrix: Tensor, damping: float = DAMPING) -> Tensor:
    """(M + λI)⁻¹ fp32 of M [d, d], with λ = damping · trace(M) / d; computed in fp64."""
    d = matrix.shape[0]
    M = matrix.double()
    M = M + (damping * M.trace() / d).clamp(min=1e-12) * torch.eye(d, dtype=torch.float64, device=M.device)
    return torch.linalg.inv(M).float()


def whitening_basis(F_h: Tensor, width: int = KEY_WIDTH) -> Tensor:
    """W [width, d] fp32 of the kNN keys: the leading eigenvectors of F_h [d, d], scaled to unit variance.

    Without whitening, the few directions that all hidden states share would dominate the cosine. A quarter of the mean
    eigenvalue is added to each eigenvalue, so that directions of noise are not amplified.
    """
    values, vectors = torch.linalg.eigh(F_h.double())
    scale = (values.clamp(min=0) + 0.25 * values.mean().clamp(min=1e-12)).rsqrt()
    return (vectors * scale).T.flip(0)[:width].float().contiguous()


@dataclass
class Curvature:
    """Running sums over the n tokens of a text, [d, d] fp64: F_e = Σ e eᵀ, F_h = Σ h hᵀ, S = Σ e hᵀ.

    `energy` is Σ ‖e hᵀ‖². F_e/n and F_h/n are the factors of K-FAC (arXiv 1503.05671).
    """

    F_e: Tensor
    F_h: Tensor
    S: Tensor
    energy: float = 0.0
    n: int = 0

    @classmethod
    def zeros(cls, d: int) -> Curvature:
        """The sums of no text, for hidden states of width d."""
        F_e, F_h, S = torch.zeros(3, d, d, dtype=torch.float64)
        return cls(F_e, F_h, S)

    def add(self, e: Tensor, h: Tensor) -> None:
        """Add a batch of tokens with gradients e and hidden states h [N, d]."""
        self.F_e += (e.T @ e).double().cpu()
        self.F_h += (h.T @ h).double().cpu()
        self.S += (e.T @ h).double().cpu()
        self.energy += float((e.square().sum(1) * h.square().sum(1)).sum())
        self.n += len(e)


def estimate(curvature: Curvature, *, scalars: PriorScalars | None = None, means: Iterable[Tensor] = ()) -> MemoryPrior:
    """A prior from the curvature of some text, with the given or default scalars.

    `means` are S/n [d, d] of training repositories; without any the mean is 0. Models wider than FULL_RANK_UP_TO get
    bases: the leading singular vectors of the preconditioned gradient P (S/n) Q. Raises CheckpointError if the
    curvature has no token.
    """
    if curvature.n == 0:
        raise CheckpointError("A prior needs at least one token of text.")
    scalars = replace(scalars or PriorScalars(), token_energy=max(curvature.energy / curvature.n, 1e-12))
    P, Q = damped_inverse(curvature.F_e / curvature.n), damped_inverse(curvature.F_h / curvature.n)
    keys = whitening_basis(curvature.F_h / curvature.n)
    all_means = list(means)
    mean = torch.stack(all_means).mean(0).float() if all_means else torch.zeros_like(P)
    d = P.shape[0]
    if d <= FULL_RANK_UP_TO:
        return MemoryPrior(P, Q, mean, keys, scalars=scalars)
    U, _, Vh = torch.linalg.svd(P @ (curvature.S / curvature.n).float() @ Q, full_matrices=False)
    B, A = U[:, :BASIS_RANK].contiguous(), Vh[:BASIS_RANK].contiguous()
    F_e, F_h = (
        B.double().T @ (curvature.F_e / curvature.n) @ B.double(),
        A.double() @ (curvature.F_h / curvature.n) @ A.double().T,
    )
    return MemoryPrior(damped_inverse(F_e), damped_inverse(F_h), B.T @ mean @ A.T, keys, A, B, scalars)


def save(prior: MemoryPrior, path: Path, base: str, note: str = "") -> None:
    """Write a prior as safetensors. The metadata holds the scalars, the digest of the base model and a note."""
    from safetensors.torch import save_file

    metadata = {"format": _FORMAT, "base": base, "steps": json.dumps(asdict(prior.scalars)), "note": note}
    save_file({name: tensor.contiguous() for name, tensor in to_tensors(prior).items()}, path, metadata=metadata)


def load(path: Path, base: str) -> MemoryPrior:
    """Load the prior of the base model with digest `base`.

    Raises CheckpointError if the file cannot be read, is incomplete, has another format or base, or has numbers that
    are not finite.
    """
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
        raise CheckpointError(f"The memory prior {path.name} contains numbers that are not finite.")
    return from_tensors(tensors, _scalars_in(metadata))


def _scalars_in(metadata: Mapping[str, str]) -> PriorScalars:
    """The scalars by name; one that an older file lacks gets its default."""
    try:
        return PriorScalars(**json.loads(metadata["steps"]))
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"The scalars of the memory prior cannot be read: {error}.") from error


def to_tensors(prior: MemoryPrior) -> dict[str, Tensor]:
    """The prior as named tensors, scalars included: for saving with a state whose base model has no shipped prior."""
    tensors = {"P": prior.P, "Q": prior.Q, "mean": prior.mean, "keys": prior.keys}
    tensors |= {name: t for name, t in (("A", prior.A), ("B", prior.B)) if t is not None}
    names = sorted(asdict(prior.scalars))
    return tensors | {"steps": torch.tensor([getattr(prior.scalars, name) for name in names], dtype=torch.float64)}


def from_tensors(tensors: Mapping[str, Tensor], scalars: PriorScalars | None = None) -> MemoryPrior:
    """The inverse of `to_tensors`; `scalars` replace those in the tensors.

    Raises CheckpointError if a tensor is missing or has a wrong length.
    """
    try:
        if scalars is None:
            names = sorted(asdict(PriorScalars()))
            scalars = PriorScalars(**dict(zip(names, _numbers(tensors["steps"]), strict=True)))
        matrices = (tensors["P"], tensors["Q"], tensors["mean"], tensors["keys"], tensors.get("A"), tensors.get("B"))
        return MemoryPrior(*matrices, scalars)
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"A stored memory prior is incomplete: {error}.") from error


def _numbers(tensor: Tensor) -> list[float]:
    """The numbers of a vector. ValueError for any other tensor."""
    if tensor.dim() != 1 or not tensor.is_floating_point():
        raise ValueError(f"{tensor.dtype} {tuple(tensor.shape)} is no vector of numbers")
    numbers: list[float] = tensor.tolist()
    return numbers


def check(prior: MemoryPrior, d: int) -> None:
    """Raise CheckpointError unless a prior saved with a state fits a model of width `d` and is finite."""
    if any(tensor.dim() != 2 or not tensor.numel() for tensor in (prior.P, prior.keys)):
        raise CheckpointError("A stored memory prior has a tensor that is no matrix.")
    R, found = prior.R, to_tensors(prior)
    wanted: dict[str, tuple[int, ...]] = dict.fromkeys(("P", "Q", "mean"), (R, R))
    wanted |= {"keys": (prior.keys.shape[0], d), "A": (R, d), "B": (d, R)}
    if prior.A is None and prior.B is None and d == R:  # full rank: no bases
        del wanted["A"], wanted["B"]
    for name, shape in wanted.items():
        if name not in found or found[name].dtype != torch.float32 or tuple(found[name].shape) != shape:
            raise CheckpointError(f"A stored memory prior's {name} does not fit the model.")
    if found.keys() != {*wanted, "steps"}:
        raise CheckpointError("A stored memory prior contains unknown tensors.")
    positive = (prior.scalars.token_energy, prior.scalars.fade_recent)
    if min(asdict(prior.scalars).values()) < 0 or min(positive) <= 0 or prior.scalars.decay > 1:
        raise CheckpointError("A stored memory prior has a scalar out of range.")
    if not all(bool(tensor.isfinite().all()) for tensor in found.values()):
        raise CheckpointError("A stored memory prior contains numbers that are not finite.")
