"""The run of the adapter table: small units of work, each a file, in any legs and shards.

    WORK/cases/NAME-….json          a repository's case          WORK/adapters/METHOD/NAME-….safetensors
    WORK/units/NAME/METHOD.PART-….json   one method, one repository, one part of the table

A file's name holds a digest of everything its content depends on, so a changed model, method or size never meets an old
result. Files are written aside and renamed. A shard does its share of the units; whatever a unit needs of another
repository (its case, its adapter) it takes from the folder, or makes again.
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
from c2l_lab.benchmarks.repositories import cases
from c2l_lab.benchmarks.repositories.cases import Case, Sizes
from c2l_lab.benchmarks.repositories.source import open_source
from c2l_lab.benchmarks.repositories.spans import names_of
from c2l_lab.corpus import corpus
from c2l_lsp.errors import CorpusError
from c2l_lsp.model.lm.base import BaseModel

RULES = 2  # part of every unit's name: raise when a measurement changes its meaning
OTHERS, NEAREST = 15, 5
PARTS = ("loss", "line", "ages", "rename", "others")
"""What can be measured of a method; the last compares repositories."""


@dataclass(frozen=True)
class Unit:
    """One method, one repository, one part."""

    repository: str
    method: str
    part: str


@dataclass(frozen=True)
class Plan:
    """What is compared. `mirror` None: the corpus' files, without a past. `without`: parts left out, as METHOD.PART."""

    corpus: Path
    mirror: Path | None
    work: Path
    repositories: int = 24
    sizes: Sizes = field(default_factory=Sizes)
    amounts: Amounts = field(default_factory=Amounts)
    without: frozenset[str] = frozenset()


class Repositories:
    """The cases of the compared repositories: the first of the corpus that have enough text."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self._plan, self._held = plan, dict[str, Case]()
        manifest = corpus.read_manifest(plan.corpus)
        self._commits = {about["name"]: about["commit"] for about in manifest["repositories"]}
        self._data = hashlib.blake2b("".join(sorted(manifest["shards"])).encode(), digest_size=8).hexdigest()
        self._texts: dict[str, dict[str, str]] = {}
        self.refused: dict[str, str] = {}
        self.names = list(self._choose(say))
        if len(self.names) < 2:
            raise CorpusError(f"At least two repositories with enough text are needed: {self.refused}.")

    def __getitem__(self, name: str) -> Case:
        """A repository's case, from the folder or made."""
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
                say(f"{name}: left out, {found}")
                continue
            self._held[name] = found
            chosen += 1
            yield name

    def _made(self, name: str) -> Case | str:
        commit = self._commits[name]
        past = "past" if self._plan.mirror else "now"
        about = f"{cases.RULES} {self._data} {commit} {past} {asdict(self._plan.sizes)}"
        folder, stem = self._plan.work / "cases", f"{plain(name)}-{short(about)}"  # a name may hold dots: no suffixes
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


class Shelf:
    """`Adapters` in the work folder."""

    def __init__(self, model: BaseModel, plan: Plan, repositories: Repositories) -> None:
        self._model, self._plan, self._repositories = model, plan, repositories
        self._last: tuple[str, Fitted] | None = None
        self.names: Sequence[str] = repositories.names

    def fitted(self, method: Method, name: str) -> Fitted:
        """From the folder, or made and put there; contexts and what changes nothing are made again each time."""
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
        shelf = Shelf(model, plan, self.repositories)
        self._bench = Bench(model, Reader(model), Lines(model), shelf, plan.amounts)
        self._rivals: dict[str, list[str]] = {}

    def units(self) -> list[Unit]:
        """All of them: first what needs a repository alone, then what compares repositories."""
        names, found = self.repositories.names, list[Unit]()
        for part in PARTS[:-1]:
            found += [Unit(name, m.name, part) for name in names for m in self.methods.values() if _has(m, part)]
        order = {name: index for index, name in enumerate(names)}
        pooled = [unit for unit in found if unit.method == "mean"]
        found = sorted((unit for unit in found if unit.method != "mean"), key=lambda unit: order[unit.repository])
        compared = [Unit(name, m.name, "others") for m in self.methods.values() if m.own for name in names]
        return [u for u in (*found, *pooled, *compared) if f"{u.method}.{u.part}" not in self.plan.without]

    def file(self, unit: Unit) -> Path:
        """Where a unit's result is."""
        method, case = self.methods[unit.method], self.repositories[unit.repository]
        pool = "".join(self.repositories[name].digest for name in self.repositories.names)
        about = f"{RULES} {self.model.digest} {method.digest} {case.digest} {asdict(self.plan.amounts)} "
        about += pool if unit.part == "others" or unit.method == "mean" else ""
        return self.plan.work / "units" / plain(unit.repository) / f"{unit.method}.{unit.part}-{short(about)}.json"

    def share(self, shard: tuple[int, int]) -> list[Unit]:
        """The units of shard (i, n), 0 ≤ i < n: whole repositories, so that what is read of one is read once."""
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
        """All results. CorpusError if some are not there yet."""
        missing = [unit for unit in self.units() if not self.file(unit).is_file()]
        if missing:
            raise CorpusError(f"{len(missing)} units are not measured yet, e.g. {missing[0]}; run the other shards.")
        return {unit: self.do(unit) for unit in self.units()}

    def rivals(self, name: str) -> list[str]:
        """The repositories whose adapters are the control: the nearest by the names they use, then some at random."""
        if not self._rivals:
            self._rivals = rivals({other: self.repositories[other] for other in self.repositories.names})
        return self._rivals[name]

    def _measure(self, unit: Unit) -> Values:
        case, method = self.repositories[unit.repository], self.methods[unit.method]
        if unit.part == "others":
            return metrics.others(self._bench, case, method, self.rivals(unit.repository))
        measures: dict[str, Callable[[Bench, Case, Method], Values]] = {
            "loss": metrics.loss, "line": metrics.line, "ages": metrics.ages, "rename": metrics.rename,
        }  # fmt: skip
        return measures[unit.part](self._bench, case, method)


def _has(method: Method, part: str) -> bool:
    return part in ("loss", "line") or (method.network is not None and method.own)


def rivals(found: Mapping[str, Case], seed: int = 0) -> dict[str, list[str]]:
    """For each repository the NEAREST others by tf-idf of their states' names, and random ones up to OTHERS."""
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
    """A repository's name as a file's."""
    return name.replace("/", "+")


def short(text: str) -> str:
    """A digest for a file's name."""
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def write(file: Path, text: str) -> None:
    """Write aside, then in place. CorpusError if the disk refuses."""
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(file)
    except OSError as error:
        raise CorpusError(f"{file} cannot be written: {error.strerror or error}.") from error
