"""Three small repositories with history, their corpus, and a memory prior for the tiny model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.benchmark_repositories import commit, git, program

TOPICS = ("ledger", "planet", "garden")


@dataclass(frozen=True)
class World:
    """Folders: `mirror` of git repositories, the built `corpus`, and weights by kind for the tiny model."""

    mirror: Path
    corpus: Path
    weights: dict[str, Path]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, tiny) -> World:
    import torch
    from c2l_lab.corpus import corpus

    from c2l_lsp.model.hypernet import checkpoint
    from c2l_lsp.model.hypernet import prior as priors
    from c2l_lsp.model.hypernet.gru import CommitGRU, GRUConfig
    from c2l_lsp.model.hypernet.lora_head import Code2LoRAHead, HeadConfig

    root = tmp_path_factory.mktemp("world")
    names = [f"{topic}-owner/{topic}.py" for topic in TOPICS]  # a name with a dot, as many have
    for salt, (name, topic) in enumerate(zip(names, TOPICS, strict=True)):
        folder = root / "mirror" / name.replace("/", "+") / "repo"
        folder.mkdir(parents=True)
        git(folder, "init", "-q")
        files = program(topic, 10 * salt)
        commit(folder, files)
        for turn in range(3):  # part_5, part_6, part_7 are touched last
            path = f"{topic}/part_{5 + turn}.py"
            commit(folder, {path: files[path] + f"\n\ndef late_{turn}(value):\n    return value + {turn}\n"})
    built = root / "corpus"
    corpus.build(names, root / "mirror", built, workers=1)
    d = tiny.d
    made = priors.MemoryPrior(
        torch.eye(d), torch.eye(d), torch.zeros(d, d), torch.eye(d)[:64], scalars=priors.PriorScalars(eta=2.0, n0=10.0)
    )
    priors.save(made, root / "memory.safetensors", tiny.digest)
    weights = {"memory": root / "memory.safetensors"}
    torch.manual_seed(0)
    dims = {"q_proj": (64, 64), "down_proj": (128, 64)}
    gru = GRUConfig(diff_input_dim=2 * d, repo_state_dim=2 * d, hidden_dim=32)
    for kind, wide in (("static", 2 * d), ("evo", 32)):
        head = HeadConfig(type_dims=dims, input_dim=wide, hidden_dim=16, rank=2)
        manifest = checkpoint.Manifest(kind=kind, head=head, gru=gru if kind == "evo" else None, base="tiny")
        made_head, made_gru = Code2LoRAHead(head), CommitGRU(gru) if kind == "evo" else None
        weights[kind] = root / kind
        checkpoint.save(checkpoint.Checkpoint.from_modules(manifest, made_head, made_gru), weights[kind])
    return World(root / "mirror", built, weights)
