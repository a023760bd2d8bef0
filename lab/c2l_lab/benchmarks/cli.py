"""The commands `c2l-lab bench …`. Importing this module loads no torch."""

from __future__ import annotations

import typer

from c2l_lab.benchmarks.adapters.cli import bench_adapt, bench_train_shared
from c2l_lab.benchmarks.lines.cli import bench_ends, bench_lines, bench_scaling, bench_vocabulary
from c2l_lab.benchmarks.perf.cli import bench_perf
from c2l_lab.benchmarks.recency.cli import bench_recency
from c2l_lab.benchmarks.repopeft.assert_cli import bench_assert
from c2l_lab.benchmarks.repopeft.cli import repopeft_app
from c2l_lab.benchmarks.secrets.cli import bench_secrets
from c2l_lab.benchmarks.typing.cli import bench_gallery, bench_thresholds, bench_typing

bench_app = typer.Typer(help="Measure the gain and the cost of adapters.", no_args_is_help=True)


@bench_app.callback()
def _group() -> None:
    """Measure the gain and the cost of adapters."""


bench_app.command("adapt")(bench_adapt)
bench_app.command("train-shared")(bench_train_shared)
bench_app.command("lines")(bench_lines)
bench_app.command("ends")(bench_ends)
bench_app.command("scaling")(bench_scaling)
bench_app.command("vocabulary")(bench_vocabulary)
bench_app.command("assert")(bench_assert)
bench_app.command("perf")(bench_perf)
bench_app.command("recency")(bench_recency)
bench_app.command("secrets")(bench_secrets)
bench_app.command("typing")(bench_typing)
bench_app.command("gallery")(bench_gallery)
bench_app.command("thresholds")(bench_thresholds)
bench_app.add_typer(repopeft_app, name="repopeft")
