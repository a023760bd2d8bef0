"""The interface of a method: it turns the state of a repository into an adapter, or into text before the prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from c2l_lab.benchmarks.adapters.scoring import Context
from c2l_lab.repositories.cases import Case
from c2l_lsp.model.adapter.lora import Adapter
from c2l_lsp.model.hypernet.protocol import Hypernetwork
from c2l_lsp.model.lm.base import BaseModel

T = TypeVar("T")


@dataclass(frozen=True)
class Fitted:
    """The result of a method: an adapter, a context of at most `budget` tokens, or neither; and the seconds it took."""

    adapter: Adapter | None = None
    context: Context | None = None
    budget: int = 0
    seconds: float = 0.0


class Adapters(Protocol):
    """The adapters of all compared repositories, each made once."""

    names: Sequence[str]

    def fitted(self, method: Method, name: str) -> Fitted:
        """The result of a method for the repository of this name."""
        ...


class Method(Protocol):
    """A method: one row of the table."""

    @property
    def name(self) -> str:
        """The name in the table."""
        ...

    @property
    def digest(self) -> str:
        """A digest of weights and settings. Cached results with another digest are not used."""
        ...

    @property
    def per_repository(self) -> bool:
        """Whether the adapters of several repositories are compared with each other."""
        ...

    @property
    def network(self) -> Hypernetwork | None:
        """The hypernetwork behind the method, or None."""
        ...

    def fit(self, case: Case, adapters: Adapters) -> Fitted:
        """The adapter or context for a repository."""
        ...


@dataclass(frozen=True)
class Options:
    """Options of the methods: weight files by kind, the training corpus, the work folder, and training settings."""

    weights: dict[str, Path] = field(default_factory=dict)
    train: Path | None = None
    work: Path = Path()
    shared_tokens: int = 400_000
    rank: int = 16
    rate: float = 1.5e-3
    full_rate: float = 2e-4
    epochs: float = 3.0


@dataclass(frozen=True)
class Setup:
    """The arguments of every method's constructor."""

    model: BaseModel
    options: Options
    _made: dict[str, Any] = field(default_factory=dict)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """An object that several methods share; the first call makes it."""
        if name not in self._made:
            self._made[name] = make()
        made: T = self._made[name]
        return made


class NotTrained(Exception):
    """A method cannot run because weights or data are missing; the message is the reason."""
