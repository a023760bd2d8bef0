"""Fitting the mixture gate: what the rows are made of, and that the fit finds what is in them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from c2l_lab.train.memory import cli, mixture_fit, mixture_rows
from c2l_lab.train.memory.mixture_rows import Rows, Sizes
from typer.testing import CliRunner

from c2l_lsp.errors import CorpusError
from c2l_lsp.model.adapter import mixture
from c2l_lsp.model.adapter.mixture import FEATURES, MAX_MEMORY_WEIGHT
from tests.support.training_text import MIT, MakeRepository

SMALL = Sizes(
    long_windows=1, short_windows=2, requests=0, keyed=4000, held_out=4000, least_index=100, least_held_out=100,
    least_file=200,
)  # fmt: skip


def texts(sources: list[str]) -> mixture_rows.HeldOut:
    *some, longest = sorted((text for text in sources if len(text) > 4000), key=len)
    return mixture_rows.HeldOut({f"m{i}.py": text for i, text in enumerate(some[:4])}, {"t.py": longest})


@pytest.fixture(scope="module")
def rows(tiny, sources: list[str]) -> Rows:
    return mixture_rows.collect(tiny, mixture_fit.untrained(), texts(sources), SMALL, "seed")


def test_rows_hold_the_three_tiers_of_every_position(rows: Rows) -> None:
    tiers = [rows.where(rows.tier == tier) for tier in range(3)]
    assert len({len(tier.tier) for tier in tiers}) == 1 and len(tiers[0].tier) > 100
    for one in tiers[1:]:  # the token vote does not depend on keys
        assert np.array_equal(one.features[:, :8], tiers[0].features[:, :8])
    assert not tiers[0].present[:, 1].any() and tiers[2].present[:, 1].mean() > 0.5
    assert tiers[1].present[:, 1].sum() < tiers[2].present[:, 1].sum()
    assert rows.present[:, 0].mean() > 0.8
    assert not rows.features[~rows.present[:, 1]][:, 8:].any()
    assert set(rows.prefix.tolist()) == {128, 768}  # the tiny model has 1,024 positions


def test_rows_hold_probabilities_of_the_true_token(rows: Rows) -> None:
    for expert in range(3):  # where an expert's favourite is right, its probabilities are those of the target
        right = rows.right[:, expert]
        assert rows.target[right] == pytest.approx(rows.favourites[right][:, expert])
    assert rows.right[:, 1].any() and rows.right[:, 2].any()
    assert rows.favourites[:, 0, 0] == pytest.approx(rows.features[:, FEATURES.index("highest model probability")])
    voted = rows.present[:, 0]
    assert rows.favourites[voted][:, 1, 1] == pytest.approx(rows.features[voted, FEATURES.index("highest token vote")])
    assert (rows.target[:, 1] > 0).mean() > 0.1


def test_rows_survive_a_file(rows: Rows, tmp_path: Path) -> None:
    rows.save(tmp_path / "a" / "rows.safetensors")
    loaded = Rows.load(tmp_path / "a" / "rows.safetensors")
    for field in fields(Rows):
        assert np.array_equal(getattr(loaded, field.name), getattr(rows, field.name))


def planted(seed: int, n: int = 3000) -> Rows:
    """Rows in which the token vote is right exactly where its first feature is 1, and the key vote never."""
    rng = np.random.default_rng(seed)
    features = rng.random((n, len(FEATURES)))
    good = rng.random(n) < 0.5
    features[:, 1] = good
    target = np.stack([np.full(n, 0.2), np.where(good, 0.9, 0.0), np.zeros(n)], 1)
    favourites = np.tile(np.array([[0.4, 0, 0], [0.2, 0.9, 0], [0.2, 0, 0.9]]), (n, 1, 1))
    right = np.stack([~good, good, np.zeros(n, bool)], 1)
    return Rows(
        features, np.ones((n, 2), bool), target, favourites, right, np.full(n, 2), np.full(n, 128), np.zeros(n, int)
    )


def test_fit_learns_when_to_trust_which_vote() -> None:
    train, unseen = [planted(1), planted(2)], planted(3)
    gate = mixture_fit.fit(train)
    good = unseen.features[:, 1] == 1
    weights = np.array([gate.weights(x, has_tok=True, has_key=True) for x in unseen.features[:200]])
    assert weights[good[:200], 0].min() > 0.8
    assert weights[~good[:200], 0].max() < 0.05
    assert weights[:, 1].max() < 0.05
    best = (np.log(0.2) - np.log(0.2 * 0.05 + 0.9 * 0.95)) * good.mean()
    assert mixture_fit.change(gate, unseen) == pytest.approx(best, abs=0.03)
    blind = mixture_fit.fit(train, dropped=[FEATURES[1]])
    assert mixture_fit.change(blind, unseen) > mixture_fit.change(gate, unseen) + 0.1
    assert not blind.hidden_weights[:, 1].any()


def test_weights_of_many_rows_are_those_of_the_gate(rows: Rows) -> None:
    gate = mixture_fit.fit([rows])
    some = rows.where(np.arange(len(rows.tier)) % 29 == 0)
    for strength in (1.0, 1.5):
        together = mixture_fit._weights(gate, some, strength)
        for x, present, row in zip(some.features, some.present, together, strict=True):
            one = gate.weights(x, has_tok=bool(present[0]), has_key=bool(present[1]), strength=strength)
            assert row == pytest.approx(one, abs=1e-12)
        assert together.sum(1).max() <= MAX_MEMORY_WEIGHT + 1e-12


def test_the_memory_helps_text_of_the_same_repository(tiny, sources: list[str]) -> None:
    made = texts(sources)
    seen = replace(made, scored={"copy.py": made.indexed["m0.py"]})  # the scored text is in the index
    rows = mixture_rows.collect(tiny, mixture_fit.untrained(), seen, SMALL, "seed")
    gate = mixture_fit.fit([rows])
    assert mixture_fit.change(gate, rows) < -1
    assert mixture_fit.change(mixture_fit.untrained(), rows, strength=0.0) == 0


def test_calibration_error_is_the_gap_between_confidence_and_share_of_right_ones() -> None:
    n = 1000
    p = np.tile(np.array([[0.7, 0, 0], [0.1, 0, 0], [0.1, 0, 0]]), (n, 1, 1))
    right = np.zeros((n, 3), bool)
    right[:600, 0] = True
    rows = Rows(np.zeros((n, len(FEATURES))), np.zeros((n, 2), bool), p[:, 0], p, right, *np.zeros((3, n), int))
    assert mixture_fit.calibration_error(mixture_fit.untrained(), [rows]) == pytest.approx(0.1)


def test_split_holds_out_files_without_their_copies(
    make_repository: MakeRepository, tmp_path: Path, sources: list[str]
) -> None:
    long = sorted(text for text in sources if 3000 < len(text) < 9000)[:8]
    files = {f"m{i}.py": text for i, text in enumerate(long)}
    files |= {f"copy{i}.py": text for i, text in enumerate(long)}
    make_repository("own/one", files | {"LICENSE": MIT})
    make_repository("own/closed", files)
    found = mixture_rows.split("own/one", tmp_path / "mirror", SMALL)
    assert found.scored and not set(found.scored.values()) & set(found.indexed.values())
    with pytest.raises(CorpusError, match="licence"):
        mixture_rows.split("own/closed", tmp_path / "mirror", SMALL)
    with pytest.raises(CorpusError, match="not found"):
        mixture_rows.split("own/absent", tmp_path / "mirror", SMALL)
    with pytest.raises(CorpusError, match="too little text"):
        mixture_rows.split("own/one", tmp_path / "mirror", replace(SMALL, least_index=10_000_000))


def test_command_collects_fits_and_resumes(
    tiny_folder: Path, tmp_path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, owners in (("train", "ab"), ("tune", "cd")):
        (tmp_path / f"{name}.txt").write_text("".join(f"{owner}/repository\n" for owner in owners))
    collected: list[str] = []

    def split(name: str, mirror: Path, sizes: Sizes) -> mixture_rows.HeldOut:
        collected.append(name)
        if name == "b/repository":
            raise CorpusError(f"{name} cannot be used: it has too little text.")
        return mixture_rows.HeldOut({}, {})

    def origin(name: str, mirror: Path) -> mixture_rows.Origin:
        return mixture_rows.Origin(mirror / name, "c0ffee", "MIT")

    monkeypatch.setattr(mixture_rows, "split", split)
    monkeypatch.setattr(mixture_rows, "origin", origin)
    monkeypatch.setattr(mixture_rows, "collect", lambda *arguments: rows)
    out = tmp_path / "any.safetensors"
    arguments = [
        "--train", str(tmp_path / "train.txt"), "--tune", str(tmp_path / "tune.txt"), "--mirror", str(tmp_path),
        "--run", str(tmp_path / "run"), "--out", str(out), "--model", str(tiny_folder),
        "--manifest", str(tmp_path / "manifest.json"),
    ]  # fmt: skip
    first = CliRunner().invoke(app(cli.train_mixture), arguments)
    assert first.exit_code == 0, first.output
    assert "most keys" in first.output and "b/repository cannot be used" in first.output
    assert sorted(collected) == ["a/repository", "b/repository", "c/repository", "d/repository"]
    assert json.loads((tmp_path / "manifest.json").read_text()) == {
        "models": {tiny_folder.name: ["a/repository"]},
        "repositories": [{"name": "a/repository", "commit": "c0ffee", "licence": "MIT"}],
    }
    gate = mixture.load("any model", "", tmp_path)
    assert np.abs(gate.output_weights).max() > 0
    again = CliRunner().invoke(app(cli.train_mixture), arguments)
    assert again.exit_code == 0 and collected[4:] == ["b/repository"]


def app(command: Callable[..., None]):
    import typer

    made = typer.Typer()
    made.command()(command)
    return made


def test_windows_are_random_parts_with_their_prefix(tiny, sources: list[str]) -> None:
    text = max(sources, key=len)
    found = list(mixture_rows.windows(tiny, [text], Sizes(long_windows=2, short_windows=3), random.Random(0)))
    ids = [tiny.start_id, *tiny.encode(text)]
    assert [prefix for _, prefix in found][-3:] == [128] * 3
    for window, prefix in found:
        assert prefix + 32 < len(window) <= prefix + 257
        assert any(ids[at : at + len(window)] == window for at in range(0, len(ids), 256))


def test_keys_of_an_unknown_model_are_whitened_by_the_text_itself(tiny, sources: list[str]) -> None:
    basis = mixture_rows.key_basis(tiny, {"a.py": sources[0]}, tokens=300)
    assert basis.shape[1] == tiny.d and torch.isfinite(basis).all()
