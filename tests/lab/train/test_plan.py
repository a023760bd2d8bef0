from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from c2l_lab.corpus import corpus
from c2l_lab.train import plan

from c2l_lsp.errors import TrainingError
from tests.support.training_text import MIT, MakeRepository, module

SMALL = plan.Batch(64, 4, 1, 96, 2, 1)
HYPERNETWORKS = ("memory", "static", "text2lora")


@pytest.fixture
def corpora(tmp_path: Path, make_repository: MakeRepository) -> Path:
    names = ("alpha", "beta", "gamma", "delta", "epsilon")
    for part in ("train", "tune"):
        make_repository(
            f"{part}/one", {"LICENSE": MIT, **{f"{n}.py": module(n + part, i) for i, n in enumerate(names)}}
        )
        corpus.build([f"{part}/one"], tmp_path / "mirror", tmp_path / "corpora" / part, workers=1)
    return tmp_path / "corpora"


@pytest.mark.timeout(600)  # several processes that each load torch: minutes on a busy machine
def test_plan_trains_a_model_and_skips_stages_that_are_done(tmp_path: Path, corpora: Path) -> None:
    lines: list[str] = []
    made = plan.Plan(
        corpora, tmp_path / "out", "tiny", tokens=0.0006, decay_tokens=0.0004, vocabulary=512, batch=SMALL,
        compiled=False, rest_of_line=2,
    )  # fmt: skip
    assert plan.run(made, 0.0, lines.append)[0] == "tokenizer" and not lines
    remaining = plan.run(made, 9.0, lines.append, HYPERNETWORKS)
    assert remaining == [] and [line.split(":")[0] for line in lines] == ["tokenizer", "plateau", "decay", "export"]
    assert (tmp_path / "out" / "model" / "model.safetensors").is_file()
    lines.clear()
    assert plan.run(made, 9.0, lines.append, HYPERNETWORKS) == [] and lines == []
    more = replace(made, decay_tokens=0.002)  # a longer decay is not done
    assert next(stage.name for stage in plan.stages(more) if not stage.is_done()) == "decay"


def test_failed_stage_raises(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="tokenizer failed"):
        plan.run(plan.Plan(tmp_path / "none", tmp_path / "out"), 9.0, lambda line: None)


def test_stages_of_the_small_model_on_gpus(tmp_path: Path) -> None:
    made = plan.Plan(tmp_path, tmp_path, "small", 500.0, 80.0, batch=plan.GPU, processes=2, mirror=tmp_path, workers=7)
    words = {stage.name: plan._command(stage, 8.0) for stage in plan.stages(made)}
    assert list(words) == ["tokenizer", "plateau", "decay", "export", "memory", "static", "text2lora", "evo"]
    assert "torch.distributed.run" in words["plateau"] and words["plateau"][-2:] == ["--minutes", "8.00"]
    assert words["decay"][words["decay"].index("--workers") + 1] == "7"
    assert words["evo"][words["evo"].index("--mirror") + 1] == str(tmp_path)
    assert made.decay_steps == round(80e6 / (1152 * 114 * 2))
