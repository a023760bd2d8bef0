"""The processes under test, real server and real engine, with state of their own and with a planted fault if asked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from time import monotonic_ns

import psutil
from c2l_lab.clients.engine import ENGINE, EngineProcess
from c2l_lab.clients.lsp import SERVER, LanguageClient

from tests.support.commands import module_command


def server_command(faults: str = "") -> tuple[str, ...]:
    """The command of a server with these faults planted, joined by "+"; without any, the ordinary command."""
    return module_command("tests.soak.planted", faults, "server") if faults else SERVER


def engine_command(faults: str = "") -> tuple[str, ...]:
    """The command of an engine with these faults planted, joined by "+"; without any, the ordinary command."""
    return module_command("tests.soak.planted", faults, "engine") if faults else ENGINE


def private_environment(work: Path, **more: str) -> dict[str, str]:
    """Variables that put state into `work` and allow no download. C2L_CONFIG is kept where it is set."""
    return {
        "C2L_STATE_DIR": str(work / "state"),
        "C2L_CONFIG": os.environ.get("C2L_CONFIG", str(work / "config.toml")),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        **more,
    }


def start_server(
    work: Path, command: Sequence[str] = SERVER, cwd: Path | None = None, **environment: str
) -> LanguageClient:
    """A client with a server of its own; its log is in `work`."""
    log = work / f"server-{monotonic_ns()}.log"
    return LanguageClient(private_environment(work, **environment), command, log=log, cwd=cwd)


def start_engine(work: Path, command: Sequence[str] = ENGINE, **environment: str) -> EngineProcess:
    """An engine of its own that has not loaded a model yet."""
    return EngineProcess(private_environment(work, **environment), command)


def still_running(processes: Sequence[psutil.Process], timeout: float) -> list[psutil.Process]:
    """Those of the processes that have not ended after `timeout` seconds."""
    left: list[psutil.Process] = psutil.wait_procs(processes, timeout=timeout)[1]
    return left
