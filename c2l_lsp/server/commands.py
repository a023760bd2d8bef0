"""The operations behind commands and `c2l/*` requests: two tables of functions with typed parameters."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from lsprotocol import types as t
from msgspec import Struct
from pygls.exceptions import JsonRpcException

from c2l_lsp.engine import wire
from c2l_lsp.errors import C2LError, RequestCancelled, RequestError
from c2l_lsp.server.completion.eligibility import language_on
from c2l_lsp.server.session import Session
from c2l_lsp.server.transport.engine_client import EngineState
from c2l_lsp.server.transport.protocol import (
    SENTENCES,
    AcceptParams,
    AdapterStatus,
    Command,
    DeepenParams,
    ExplainParams,
    ExportParams,
    FolderParams,
    Method,
    SetEnabledParams,
    StatisticsParams,
    ToggleParams,
    parse,
    plain,
)
from c2l_lsp.server.transport.rpc import INVALID_PARAMS, Server
from c2l_lsp.server.workspace.settings import NO_FOLDER

_EXPORT_TIMEOUT = 600.0
_DEFAULT_SNOOZE_MINUTES = 5.0
Operation = Callable[[Session, Any], Awaitable[object]]


class _NoParams(Struct):
    """No parameters."""


class _SnoozeParams(Struct):
    """Duration of the snooze in minutes; 0 ends it."""

    minutes: float = _DEFAULT_SNOOZE_MINUTES


async def _status(session: Session, params: FolderParams) -> object:
    uri = params.text_document.uri if params.text_document is not None else None
    reason = session.completions.reason_for(uri) if uri is not None else None
    status = session.board.snapshot(_folder(session, params), reason)
    status.memory_mb = round(session.engine.memory_mb, 1)
    status.folders = [session.board.adapter_status(info) for info in session.board.adapters.values()]
    last = session.completions.last_reasons.get(uri or "")
    if last is not None:
        status.last_reason = last.value
    return plain(status)


async def _statistics(session: Session, params: StatisticsParams) -> object:
    report = session.statistics.report()
    if params.reset:
        session.statistics.reset()
    return report


async def _explain(session: Session, params: ExplainParams) -> object:
    explanation = session.acceptance.explain(params.id)
    if explanation is None:
        raise RequestError(f"There is no recent completion with the id {params.id}.")
    return explanation


async def _accepted(session: Session, params: AcceptParams) -> object:
    session.acceptance.record_accepted(params.id, params.chars, partly=params.partly)
    return None


async def _info(session: Session, params: FolderParams) -> object:
    info = await session.engine.call(
        "adapter_info", wire.Folder(folder=_required_folder(session, params)), wire.AdapterInfo
    )
    session.board.set_adapter(info)
    numbers = {"norm": info.norm, "rank": info.rank, "recalled": info.recalled, "keyed": info.keyed}
    return plain(session.board.adapter_status(info)) | numbers


async def _regenerate(session: Session, params: FolderParams) -> object:
    await session.engine.call("regenerate", wire.Folder(folder=_required_folder(session, params)), wire.Nothing)
    return {}


async def _reset(session: Session, params: FolderParams) -> object:
    await session.engine.call("reset", wire.Folder(folder=_required_folder(session, params)), wire.Nothing)
    return {}


async def _export(session: Session, params: ExportParams) -> object:
    if not params.out:
        raise RequestError("The parameter out is missing: the directory to write the adapter to.")
    export = wire.Export(folder=_required_folder(session, params), out=params.out, rank=params.rank)
    done = await session.engine.call("export", export, wire.Exported, _EXPORT_TIMEOUT)
    return {"out": done.out, "rank": done.rank, "error": done.error, "generation": done.generation}


async def _deepen(session: Session, params: DeepenParams) -> object:
    info = await session.finetune(_required_folder(session, params), cancel=params.cancel, steps=params.steps)
    return plain(session.board.adapter_status(info))


async def _set_enabled(session: Session, params: SetEnabledParams) -> object:
    folder = _required_folder(session, params)
    disabled = session.engine.disabled
    enabled = folder in disabled if params.enabled is None else params.enabled
    (disabled.discard if enabled else disabled.add)(folder)
    if session.engine.is_ready:  # otherwise the client sends it when the engine starts
        request = wire.SetEnabled(folder=folder, enabled=enabled)
        session.board.set_adapter(await session.engine.call("set_enabled", request, wire.AdapterInfo))
    session.board.publish()
    info = session.board.adapters.get(folder)
    return plain(
        session.board.adapter_status(info) if info is not None else AdapterStatus(folder=folder, enabled=enabled)
    )


async def _load(session: Session, _: _NoParams) -> object:
    if session.engine.state is EngineState.FAILED:
        await session.restart()
    session.engine.wake()
    return {"life": session.engine.state.value}


async def _unload(session: Session, _: _NoParams) -> object:
    await session.engine.unload()
    return {"life": session.engine.state.value}


async def _restart(session: Session, _: _NoParams) -> object:
    await session.restart()
    return {"life": session.engine.state.value}


async def _toggle(session: Session, params: ToggleParams) -> object:
    switches = session.switches
    if params.uri is not None:
        now_on = switches.documents.get(params.uri, session.completions.reason_for(params.uri) is None)
        enabled = switches.documents[params.uri] = not now_on if params.enabled is None else params.enabled
    else:
        enabled = switches.enabled = not switches.enabled if params.enabled is None else params.enabled
    session.switches_changed()
    return {"enabled": enabled}


async def _toggle_language(session: Session, params: ToggleParams) -> object:
    document = session.documents.get(params.uri) if params.uri is not None else None
    language = params.language or (document.language if document is not None else None)
    if language is None:
        raise RequestError("The language is missing: give language (an LSP language id) or uri (of an open document).")
    now_on = language_on(session.settings(NO_FOLDER), session.switches, language)
    enabled = session.switches.languages[language] = not now_on if params.enabled is None else params.enabled
    session.switches_changed()
    return {"language": language, "enabled": enabled}


async def _snooze(session: Session, params: _SnoozeParams) -> object:
    session.switches.snoozed_until = time.time() + 60 * params.minutes if params.minutes > 0 else 0.0
    session.switches_changed()
    return {"until": session.switches.snoozed_until}


async def _report(session: Session, params: FolderParams) -> object:
    uri = params.text_document.uri if params.text_document is not None else ""
    reason = session.completions.last_reasons.get(uri)
    last = None if reason is None else {"code": reason.value, "message": SENTENCES[reason]}
    return {
        "status": await _status(session, params),
        "statistics": session.statistics.report(),
        "lastReason": last,
    }


def _folder(session: Session, params: FolderParams) -> str:
    uri = params.text_document.uri if params.text_document is not None else None
    return session.folders.find(params.folder, uri) or (session.board.active_folder if params.folder is None else "")


def _required_folder(session: Session, params: FolderParams) -> str:
    folder = _folder(session, params)
    if not folder:
        raise RequestError("This workspace folder is not open." if params.folder else "No workspace folder is open.")
    return folder


REQUESTS: dict[Method, tuple[type[Struct], Operation]] = {
    Method.STATUS: (FolderParams, _status),
    Method.STATISTICS: (StatisticsParams, _statistics),
    Method.EXPLAIN: (ExplainParams, _explain),
    Method.ADAPTER_INFO: (FolderParams, _info),
    Method.ADAPTER_REGENERATE: (FolderParams, _regenerate),
    Method.ADAPTER_RESET: (FolderParams, _reset),
    Method.ADAPTER_EXPORT: (ExportParams, _export),
    Method.ADAPTER_DEEPEN: (DeepenParams, _deepen),
    Method.ADAPTER_SET_ENABLED: (SetEnabledParams, _set_enabled),
    Method.MODEL_LOAD: (_NoParams, _load),
    Method.MODEL_UNLOAD: (_NoParams, _unload),
}
COMMANDS: dict[Command, tuple[type[Struct], Operation]] = {
    Command.DID_ACCEPT: (AcceptParams, _accepted),
    Command.TOGGLE: (ToggleParams, _toggle),
    Command.TOGGLE_LANGUAGE: (ToggleParams, _toggle_language),
    Command.SNOOZE: (_SnoozeParams, _snooze),
    Command.SHOW_STATUS: (FolderParams, _status),
    Command.SHOW_STATISTICS: (StatisticsParams, _statistics),
    Command.SHOW_REPORT: (FolderParams, _report),
    Command.REGENERATE_ADAPTER: (FolderParams, _regenerate),
    Command.RESET_ADAPTER: (FolderParams, _reset),
    Command.EXPORT_ADAPTER: (ExportParams, _export),
    Command.DEEPEN_ADAPTER: (DeepenParams, _deepen),
    Command.TOGGLE_ADAPTER: (SetEnabledParams, _set_enabled),
    Command.UNLOAD_MODEL: (_NoParams, _unload),
    Command.RESTART_SERVER: (_NoParams, _restart),
}
_POSITIONAL = {AcceptParams: "id", _SnoozeParams: "minutes", ToggleParams: "language", ExportParams: "out"}
"""The parameter that a command's single argument sets if it is not an object."""


def register(server: Server, session: Session) -> None:
    """Register a handler for each entry of the two tables."""
    for method, entry in REQUESTS.items():
        _register_request(server, session, method, *entry)
    for command, entry in COMMANDS.items():
        _register_command(server, session, command, *entry)


def _register_request(server: Server, session: Session, method: Method, kind: type[Struct], run: Operation) -> None:
    @server.feature(method.value)
    async def handle(params: Any) -> Any:  # noqa: ANN401 - plain values, parsed in `_run`
        return await _run(session, run, kind, params)


def _register_command(server: Server, session: Session, command: Command, kind: type[Struct], run: Operation) -> None:
    @server.command(command.value)
    async def handle(*arguments: Any) -> Any:  # noqa: ANN401 - plain values, parsed in `_run`
        params = arguments[0] if arguments else None
        if params is not None and not isinstance(params, dict) and kind in _POSITIONAL:
            params = {_POSITIONAL[kind]: params}
        return await _run(session, run, kind, params)


async def _run(session: Session, run: Operation, kind: type[Struct], params: object) -> object:
    try:
        return await run(session, parse(params, kind))
    except RequestCancelled as error:
        raise JsonRpcException(str(error), t.LSPErrorCodes.RequestCancelled.value) from error
    except C2LError as error:
        code = INVALID_PARAMS if isinstance(error, RequestError) else t.LSPErrorCodes.RequestFailed.value
        raise JsonRpcException(str(error), code, {"code": error.code}) from error
