"""The command `c2l-lab train screen`. Importing this module loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

REPOSITORIES = Path(__file__).with_name("repositories.txt")


def train_screen(
    mirror: Annotated[Path, typer.Option("--mirror", help="Git repositories, as owner+name or owner/name.")],
    out: Annotated[Path, typer.Option("--out", help="Output folder.")],
    repositories: Annotated[Path, typer.Option("--list", help="Repositories of ordinary text.")] = REPOSITORIES,
    gitleaks: Annotated[str, typer.Option(help="The detector's repository below the mirror.")] = "gitleaks/gitleaks",
) -> None:
    """Make the two data files of the screen for secrets: costs of ordinary text, and the rules of a detector."""
    from c2l_lab.corpus import sources
    from c2l_lab.train.screen import detector_rules, literal_costs
    from c2l_lsp.repo.filter.randomness import COSTS_FILE
    from c2l_lsp.repo.filter.secret_rules import RULES_FILE

    names = sources.read_list(repositories)
    read = (literal_costs.texts(sources.git_folder(name, mirror)) for name in names)
    (out / COSTS_FILE).write_bytes(literal_costs.estimate(read))
    detector = sources.GitRepository(sources.git_folder(gitleaks, mirror))
    (out / RULES_FILE).write_text(detector_rules.convert_repository(detector), encoding="utf-8")
