"""Predictions of one method for one split, written line by line so that a stopped run continues, and their scores.

A line of predictions is {"id", "repo_id", "commit_sha", "method", "prediction"}; `id` is the task's (`Task.id`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from c2l_lab.benchmarks.repopeft import compare, scoring
from c2l_lab.benchmarks.repopeft.dataset.schema import PER_COMMIT, Commit, Task
from c2l_lab.benchmarks.repopeft.dataset.source import Dataset, Step
from c2l_lab.benchmarks.repopeft.generate import Generator
from c2l_lab.benchmarks.repopeft.methods import Method
from c2l_lab.benchmarks.stats import Row
from c2l_lsp.errors import CorpusError

METRICS = ("exact_match", "edit_similarity", "codebleu")


def selected(data: Dataset, split: str, most: int | None = None) -> Iterator[Step]:
    """The scored steps of a split. `most`: the first tasks of each repository; None: all."""
    taken: dict[str, int] = {}
    for step in data.steps(split, PER_COMMIT):
        name = step.tasks[0].repo_id
        room = len(step.tasks) if most is None else most - taken.get(name, 0)
        if room > 0:
            taken[name] = taken.get(name, 0) + min(room, len(step.tasks))
            yield Step(step.commit, step.tasks[:room])


def predict(
    steps: Iterable[Step],
    method: Method,
    generator: Generator,
    out: Path,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Append a prediction for each task without one in `out`. CorpusError if `out` belongs to another method."""
    done = {line["id"] for line in _lines(out, method.name)} if out.exists() else set[str]()
    count = 0
    try:
        _drop_torn_line(out)
        with out.open("a", encoding="utf-8") as file:
            for step in steps:
                missing = [task for task in step.tasks if task.id not in done]
                if missing:
                    generator.use(method.adapter(_commit(step)))
                for task in missing:
                    line = {
                        "id": task.id, "repo_id": task.repo_id, "commit_sha": task.commit_sha, "method": method.name,
                        "prediction": generator.predict(task.prefix),
                    }  # fmt: skip
                    file.write(json.dumps(line) + "\n")
                file.flush()
                count += len(step.tasks)
                progress(count)
    except OSError as error:
        raise CorpusError(f"{out} cannot be written ({error.strerror}). Free some space and run it again.") from error


def predictions(file: Path) -> dict[str, str]:
    """id → prediction. CorpusError if the file is damaged; an incomplete last line is skipped."""
    return {line["id"]: line["prediction"] for line in _lines(file)}


def score(
    steps: Iterable[Step], found: dict[str, str], *, strict: bool = False, codebleu: bool = True
) -> dict[str, compare.Values]:
    """metric → repository → one value per task. CorpusError if a task has no prediction."""
    pairs: dict[str, list[tuple[str, float]]] = {metric: [] for metric in METRICS}
    missing = 0
    for task in (task for step in steps for task in step.tasks):
        if task.id not in found:
            missing += 1
            continue
        made = scoring.score(found[task.id], task, strict=strict, codebleu=codebleu)
        for metric, value in zip(METRICS, (float(made.exact), made.edit, made.codebleu), strict=True):
            if value is not None:
                pairs[metric].append((task.repo_id, value))
    if missing:
        # counting them as wrong or skipping them would falsify the score
        raise CorpusError(f"{missing} tasks of the split have no prediction. Finish the run, or score the same part.")
    return {metric: compare.by_repository(values) for metric, values in pairs.items() if values}


def digest(steps: Iterable[Step]) -> str:
    """A digest of the scored tasks, independent of the files they came from."""
    found = hashlib.blake2b(digest_size=16)
    for identity in sorted(task.id for step in steps for task in step.tasks):
        found.update(identity.encode())
    return found.hexdigest()


def rows(values: dict[str, compare.Values], method: str, split: str, strict: bool) -> list[Row]:
    """The rows of a run."""
    named = ((f"{metric}/{_tag(split, strict)}", of) for metric, of in values.items())
    return [row for name, of in named for row in compare.rows(name, method, of, "")]


def _tag(split: str, strict: bool) -> str:
    return f"{split}/strict" if strict else split


def differences(
    a: dict[str, compare.Values], b: dict[str, compare.Values], names: tuple[str, str], split: str, strict: bool
) -> list[tuple[Row, float]]:
    """The rows of a − b on the same tasks, each with its p-value."""
    out = []
    for metric in METRICS:
        if metric in a and metric in b:
            found = compare.paired(a[metric], b[metric])
            row = compare.row(f"{metric}/{_tag(split, strict)}", " - ".join(names), (found.mean, found.low, found.high))
            out.append((row, found.p))
    return out


def _drop_torn_line(file: Path) -> None:
    """Remove an incomplete last line."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        return
    data = file.read_bytes()
    if not data.endswith(b"\n"):
        file.write_bytes(data[: data.rfind(b"\n") + 1])


def _commit(step: Step) -> Commit:
    if step.commit is not None:
        return step.commit
    task: Task = step.tasks[0]
    return Commit(task.repo_id, task.commit_sha, task.commit_index)


def _lines(file: Path, method: str = "") -> Iterator[dict[str, Any]]:
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"The predictions {file} cannot be read: {error}.") from error
    whole = text[: text.rfind("\n") + 1]  # without an incomplete last line
    for number, line in enumerate(whole.split("\n")[:-1], 1):
        try:
            found = json.loads(line)
            _ = found["id"], found["prediction"]
        except (ValueError, KeyError, TypeError) as error:
            raise CorpusError(f"{file}, line {number}: not a prediction.") from error
        if method and found.get("method", method) != method:
            raise CorpusError(f"{file} contains predictions of {found['method']}. Name another file for {method}.")
        yield found
