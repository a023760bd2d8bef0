"""The units of `bench adapt`. Each unit is one file, so a run can be stopped, continued and sharded.

    WORK/cases/NAME-….json                   the case of a repository
    WORK/adapters/METHOD/NAME-….safetensors  an adapter
    WORK/units/NAME/METHOD.PART-….json       one metric of one method on one repository

A file name contains a digest of everything that the content depends on, so results of another model, method or size are
never used. Files are written under a temporary name and renamed. A shard runs its share of the units. What a unit needs
of another repository (its case, its adapter) is taken from the folder or made.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from c2l_lab.benchmarks.adapters import metrics
from c2l_lab.benchmarks.adapters.adapter_cache import load_adapter, save_adapter
from c2l_lab.benchmarks.adapters.metrics import Amounts, Bench, Values
from c2l_lab.benchmarks.adapters.rest_of_line import Lines
from c2l_lab.benchmarks.adapters.scoring import Reader
from c2l_lab.benchmarks.methods import Method
from c2l_lab.benchmarks.methods.protocol import Fitted
from c2l_lab.corpus import corpus
from c2l_lab.repositories import cases
from c2l_lab.repositories.cases import Case, Sizes
from c2l_lab.repositories.source import open_source
from c2l_lab.repositories.spans import names_of
from c2l_lsp.errors import CorpusError
from c2l_lsp.model.lm.base import BaseModel

RULES = 3  # part of every unit's file name; increase it when a metric changes
OTHERS, NEAREST = 15, 5
PARTS = ("loss", "line", "ages", "rename", "others")
"""The metrics, as they appear in file names. `others` compares repositories."""


@dataclass(frozen=True)
class Unit:
    """One metric (part) of one method on one repository."""

    repository: str
    method: str
    part: str


@dataclass(frozen=True)
class Plan:
    """What to run. Without `mirror`, the files of the corpus are used and there is no history.

    without: parts to skip, as METHOD.PART.
    """

    corpus: Path
    mirror: Path | None
    work: Path
    repositories: int = 24
    sizes: Sizes = field(default_factory=Sizes)
    amounts: Amounts = field(default_factory=Amounts)
    without: frozenset[str] = frozenset()


class Repositories:
    """The cases of the compared repositories: the first ones of the corpus with enough text."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self._plan, self._held = plan, dict[str, Case]()
        manifest = corpus.read_manifest(plan.corpus)
        self._commits = {about["name"]: about["commit"] for about in manifest["repositories"]}
        self._data = hashlib.blake2b("".join(sorted(manifest["shards"])).encode(), digest_size=8).hexdigest()
        self._texts: dict[str, dict[str, str]] = {}
        self.refused: dict[str, str] = {}
        self.names = list(self._choose(say))
        if len(self.names) < 2:
            raise CorpusError(f"At least two repositories with enough text are needed. Skipped: {self.refused}.")

    def __getitem__(self, name: str) -> Case:
        """The case of a repository, from its file or built now."""
        if name not in self._held:
            found = self._made(name)
            if isinstance(found, str):
                raise CorpusError(f"{name} cannot be measured: {found}.")
            self._held[name] = found
        return self._held[name]

    def _choose(self, say: Callable[[str], None]) -> Iterator[str]:
        chosen = 0
        for name in sorted(self._commits):
            if chosen >= self._plan.repositories:
                return
            found = self._made(name)
            if isinstance(found, str):
                self.refused[name] = found
                say(f"{name}: skipped, {found}")
                continue
            self._held[name] = found
            chosen += 1
            yield name

    def _made(self, name: str) -> Case | str:
        commit = self._commits[name]
        past = "past" if self._plan.mirror else "now"
        about = f"{cases.RULES} {self._data} {commit} {past} {asdict(self._plan.sizes)}"
        folder, stem = (
            self._plan.work / "cases",
            f"{plain(name)}-{short(about)}",
        )
        # No with_suffix: a name may contain dots.
        made, refused = folder / f"{stem}.json", folder / f"{stem}.txt"
        if made.is_file():
            return cases.load(made)
        if refused.is_file():
            return refused.read_text(encoding="utf-8")
        found = self._new(name, commit)
        if isinstance(found, Case):
            cases.save(found, made)
        else:
            write(refused, found)
        return found

    def _new(self, name: str, commit: str) -> Case | str:
        texts = self._documents()[name]
        source = open_source(name, commit, texts, self._plan.mirror, cases.AGES)
        if source is None:
            return "git cannot read it"
        return cases.build(source, self._plan.sizes, frozenset(cases.name_of(text) for text in texts.values()))

    def _documents(self) -> dict[str, dict[str, str]]:
        if not self._texts:
            self._texts = defaultdict(dict)
            for document in corpus.documents(self._plan.corpus):
                self._texts[document.repo][document.path] = document.text
        return self._texts


class AdapterStore:
    """The adapters in the work folder; implements `Adapters`."""

    def __init__(self, model: BaseModel, plan: Plan, repositories: Repositories) -> None:
        self._model, self._plan, self._repositories = model, plan, repositories
        self._last: tuple[str, Fitted] | None = None
        self.names: Sequence[str] = repositories.names

    def fitted(self, method: Method, name: str) -> Fitted:
        """The result of a method, from its file or made now. Only adapters are stored."""
        case = self._repositories[name]
        pool = "".join(self._repositories[other].digest for other in self.names) if method.name == "mean" else ""
        key = short(f"{RULES} {self._model.digest} {method.digest} {case.digest} {pool}")
        file = self._plan.work / "adapters" / method.name / f"{plain(name)}-{key}.safetensors"
        if self._last is not None and self._last[0] == str(file):
            return self._last[1]
        if file.is_file():
            adapter, seconds = load_adapter(file, self._model.digest)
            found = Fitted(adapter, seconds=seconds)
        else:
            found = method.fit(case, self)
            if found.adapter is not None and method.name != "shared":
                save_adapter(found.adapter, file, found.seconds)
        self._last = (str(file), found)
        return found


class Run:
    """All units of a plan and their results."""

    def __init__(self, model: BaseModel, methods: Sequence[Method], plan: Plan, say: Callable[[str], None]) -> None:
        self.model, self.plan = model, plan
        self.methods = {method.name: method for method in methods}
        self.repositories = Repositories(plan, say)
        store = AdapterStore(model, plan, self.repositories)
        self._bench = Bench(model, Reader(model), Lines(model), store, plan.amounts)
        self._controls: dict[str, list[str]] = {}

    def units(self) -> list[Unit]:
        """All units: first those of one repository alone, then those that compare repositories."""
        names, found = self.repositories.names, list[Unit]()
        for part in PARTS[:-1]:
            found += [Unit(name, m.name, part) for name in names for m in self.methods.values() if _has(m, part)]
        order = {name: index for index, name in enumerate(names)}
        pooled = [unit for unit in found if unit.method == "mean"]
        found = sorted((unit for unit in found if unit.method != "mean"), key=lambda unit: order[unit.repository])
        compared = [Unit(name, m.name, "others") for m in self.methods.values() if m.per_repository for name in names]
        return [u for u in (*found, *pooled, *compared) if f"{u.method}.{u.part}" not in self.plan.without]

    def file(self, unit: Unit) -> Path:
        """The result file of a unit."""
        method, case = self.methods[unit.method], self.repositories[unit.repository]
        pool = "".join(self.repositories[name].digest for name in self.repositories.names)
        about = f"{RULES} {self.model.digest} {method.digest} {case.digest} {asdict(self.plan.amounts)} "
        about += pool if unit.part == "others" or unit.method == "mean" else ""
        return self.plan.work / "units" / plain(unit.repository) / f"{unit.method}.{unit.part}-{short(about)}.json"

    def share(self, shard: tuple[int, int]) -> list[Unit]:
        """The units of shard (i, n), 0 ≤ i < n. A shard has whole repositories, so that each is embedded once."""
        place = {name: index for index, name in enumerate(self.repositories.names)}
        return [unit for unit in self.units() if place[unit.repository] % shard[1] == shard[0]]

    def do(self, unit: Unit) -> Values:
        """The result of a unit, from its file or measured now."""
        file = self.file(unit)
        if file.is_file():
            return json.loads(file.read_text(encoding="utf-8"))
        clock, cpu = time.perf_counter(), time.process_time()
        values = self._measure(unit)
        values["cost"] = {"seconds": time.perf_counter() - clock, "cpu": time.process_time() - cpu}
        write(file, json.dumps(values))
        return values

    def results(self) -> dict[Unit, Values]:
        """All results. CorpusError if some are missing."""
        missing = [unit for unit in self.units() if not self.file(unit).is_file()]
        if missing:
            raise CorpusError(f"{len(missing)} units have not run, e.g. {missing[0]}. Run the other shards first.")
        return {unit: self.do(unit) for unit in self.units()}

    def controls(self, name: str) -> list[str]:
        """The repositories whose adapters are the controls: the nearest by the names they use, then random ones."""
        if not self._controls:
            self._controls = controls({other: self.repositories[other] for other in self.repositories.names})
        return self._controls[name]

    def _measure(self, unit: Unit) -> Values:
        case, method = self.repositories[unit.repository], self.methods[unit.method]
        if unit.part == "others":
            return metrics.others(self._bench, case, method, self.controls(unit.repository))
        measures: dict[str, Callable[[Bench, Case, Method], Values]] = {
            "loss": metrics.loss, "line": metrics.line, "ages": metrics.ages, "rename": metrics.rename,
        }  # fmt: skip
        return measures[unit.part](self._bench, case, method)


def _has(method: Method, part: str) -> bool:
    return part in ("loss", "line") or (method.network is not None and method.per_repository)


def controls(found: Mapping[str, Case], seed: int = 0) -> dict[str, list[str]]:
    """For each repository, the NEAREST others by tf-idf of the names in their states, and random ones up to OTHERS."""
    counts = {
        name: Counter(w for text in case.state.values() for w in names_of([text])) for name, case in found.items()
    }
    frequency = Counter(word for count in counts.values() for word in count)
    words = {word: index for index, word in enumerate(sorted(frequency))}
    vectors = np.zeros((len(found), len(words)))
    for row, name in enumerate(found):
        for word, times in counts[name].items():
            vectors[row, words[word]] = times * np.log(len(found) / frequency[word])
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    likeness, names = vectors @ vectors.T, list(found)
    chosen: dict[str, list[str]] = {}
    for row, name in enumerate(names):
        rest = [int(i) for i in np.argsort(-likeness[row], kind="stable") if i != row]
        far = np.random.default_rng(seed + row).permutation(rest[NEAREST:])[: OTHERS - NEAREST]
        chosen[name] = [names[i] for i in [*rest[:NEAREST], *(int(i) for i in far)]]
    return chosen


def plain(name: str) -> str:
    """A repository name as a file name."""
    return name.replace("/", "+")


def short(text: str) -> str:
    """A digest for a file name."""
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def write(file: Path, text: str) -> None:
    """Write a file atomically. CorpusError if that fails."""
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(file)
    except OSError as error:
        raise CorpusError(f"{file} cannot be written: {error.strerror or error}.") from error
