"""What every method of the adapter table is: from a repository's state to weights, or to text before the prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from c2l_lab.benchmarks.adapters.scoring import Context
from c2l_lab.benchmarks.repositories.cases import Case
from c2l_lsp.model.adapter.lora import Adapter
from c2l_lsp.model.hypernet.protocol import Hypernetwork
from c2l_lsp.model.lm.base import BaseModel

T = TypeVar("T")


@dataclass(frozen=True)
class Fitted:
    """A method on a repository: an adapter, a context of at most `budget` tokens, or neither; seconds it took."""

    adapter: Adapter | None = None
    context: Context | None = None
    budget: int = 0
    seconds: float = 0.0


class Adapters(Protocol):
    """The adapters of all compared repositories, made once."""

    names: Sequence[str]

    def fitted(self, method: Method, name: str) -> Fitted:
        """A method's result for the repository of this name."""
        ...


class Method(Protocol):
    """One row of the table. `digest` names weights and settings: results of another digest are not used again.

    `own` says whether its adapter is the repository's own, so that others' can be compared with it. `network` is its
    hypernetwork, for methods that have one.
    """

    @property
    def name(self) -> str:
        """Its name in the table."""
        ...

    @property
    def digest(self) -> str:
        """Names its weights and settings."""
        ...

    @property
    def own(self) -> bool:
        """Whether its adapter is the repository's own."""
        ...

    @property
    def network(self) -> Hypernetwork | None:
        """Its hypernetwork, if it has one."""
        ...

    def fit(self, case: Case, adapters: Adapters) -> Fitted:
        """Its adapter or context for a repository."""
        ...


@dataclass(frozen=True)
class Options:
    """What methods can be told: weight files by kind, the training corpus, a folder for what is made once, settings."""

    weights: dict[str, Path] = field(default_factory=dict)
    train: Path | None = None
    work: Path = Path()
    shared_tokens: int = 400_000
    rank: int = 16
    rate: float = 1.5e-3
    full_rate: float = 2e-4
    epochs: float = 3.0


@dataclass(frozen=True)
class Kit:
    """What methods are built from."""

    model: BaseModel
    options: Options
    _made: dict[str, Any] = field(default_factory=dict)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What several methods share, made by the first that asks."""
        if name not in self._made:
            self._made[name] = make()
        made: T = self._made[name]
        return made


class NotTrained(Exception):
    """A method that cannot run here, with the reason."""
