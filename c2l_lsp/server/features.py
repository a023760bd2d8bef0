"""Handlers of the standard LSP methods. They translate between LSP types and calls of a Session, and decide nothing."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

from lsprotocol import types as t

from c2l_lsp.errors import C2LError
from c2l_lsp.server.completion.completions import Insertion
from c2l_lsp.server.completion.items import Selected
from c2l_lsp.server.followup.follow_ups import Change, Offered
from c2l_lsp.server.session import Session
from c2l_lsp.server.transport import parent_watch
from c2l_lsp.server.transport.initialize import position_encoding
from c2l_lsp.server.transport.protocol import (
    DID_CHANGE_TRUST,
    DID_MOVE_CURSOR,
    FOLLOW_UP_KIND,
    SECTION,
    Command,
    CursorParams,
    Switched,
    TrustParams,
    parse,
)
from c2l_lsp.server.transport.rpc import Server
from c2l_lsp.server.workspace import document_messages
from c2l_lsp.server.workspace.settings import NO_FOLDER

log = logging.getLogger("c2l.lsp")
_RESPONSE_TIMEOUT = 2.0
_ANNOTATION = "follow-up"


def register(server: Server, session: Session) -> None:
    """Register the handlers of all standard features."""
    _lifecycle(server, session)
    _documents(server, session)
    _completions(server, session)
    _follow_ups(server, session)
    _settings(server, session)


def _lifecycle(server: Server, session: Session) -> None:
    @server.feature(t.INITIALIZE)
    def initialize(params: t.InitializeParams) -> None:
        general = params.capabilities.general
        session.documents.encoding = position_encoding(general.position_encodings if general is not None else None)
        options = params.initialization_options if isinstance(params.initialization_options, dict) else {}
        session.messages.structured = options.get("showsProblems") is True
        session.acceptance.infer_partial = options.get("reportsPartialAccept") is not True
        session.follow_ups.shows_replacements = options.get("showsReplacements") is True
        session.layers.set_initial(options)
        _restore_switches(session, options.get("switches"))
        window = params.capabilities.window
        session.progress_bars.supported = bool(window is not None and window.work_done_progress)
        for uri in _folders(params):
            session.add_folder(uri)
        if params.process_id is not None and server.protocol.answered_initialize_id is None:  # else app.py watches it
            parent_watch.watch(params.process_id, server.on_editor_lost)

    @server.feature(t.INITIALIZED)
    async def initialized(_: t.InitializedParams) -> None:
        session.first_pull = session.first_pull or asyncio.current_task()
        await _pull_settings(server, session)
        await _subscribe_to_settings(server)

    @server.feature(t.WINDOW_WORK_DONE_PROGRESS_CANCEL)
    async def progress_cancelled(params: t.WorkDoneProgressCancelParams) -> None:
        await session.cancel_progress(params.token)

    @server.feature(t.SHUTDOWN)
    def shutdown(_: None) -> None:
        session.begin_close()  # the editor does not wait for the engine to end

    @server.feature(t.WORKSPACE_DID_CHANGE_WORKSPACE_FOLDERS)
    async def folders_changed(params: t.DidChangeWorkspaceFoldersParams) -> None:
        for folder in params.event.removed:
            session.remove_folder(folder.uri)
        for folder in params.event.added:
            session.add_folder(folder.uri)
        await _pull_settings(server, session)

    @server.feature(DID_CHANGE_TRUST)
    def trust_changed(params: Any) -> None:  # noqa: ANN401 - plain values, parsed below
        session.set_trusted(parse(params, TrustParams).trusted)

    @server.feature(DID_MOVE_CURSOR)
    def cursor_moved(params: Any) -> None:  # noqa: ANN401 - plain values, parsed below
        moved = parse(params, CursorParams)
        session.completions.read_ahead(moved.text_document.uri, (moved.position.line, moved.position.character))


def _folders(params: t.InitializeParams) -> list[str]:
    """Return the URIs of the opened folders. Clients from before LSP 3.6 send one, from before LSP 3.0 its path."""
    if params.workspace_folders:
        return [folder.uri for folder in params.workspace_folders]
    if params.root_uri:
        return [params.root_uri]
    path = Path(params.root_path or "")
    return [path.as_uri()] if path.is_absolute() else []


def _restore_switches(session: Session, switches: object) -> None:
    try:
        switched = parse(switches, Switched)
    except C2LError as error:
        log.warning("The switches of the previous session are lost: %s", error)
        return
    session.switches.restore(switched)
    session.engine.disabled.update(switched.adapters_off)


def _documents(server: Server, session: Session) -> None:
    @server.feature(t.TEXT_DOCUMENT_DID_OPEN)
    def opened(params: Any) -> None:  # noqa: ANN401 - plain values, parsed below
        opened = document_messages.read_opened(params)
        if opened is None or opened.text is None:
            session.change_unreadable(opened.uri if opened else None)
        else:
            session.document_opened(opened.uri, opened.language, opened.version or 0, opened.text)
        ensure_settings(server, session)

    @server.feature(t.TEXT_DOCUMENT_DID_CHANGE)
    def changed(params: Any) -> None:  # noqa: ANN401 - plain values, parsed below
        changed = document_messages.read_changed(params)
        if changed is None or changed.edits is None:
            session.change_unreadable(changed.uri if changed else None)
        else:
            session.document_edited(changed.uri, changed.version, changed.edits)

    @server.feature(t.TEXT_DOCUMENT_DID_CLOSE)
    def closed(params: t.DidCloseTextDocumentParams) -> None:
        session.document_closed(params.text_document.uri)

    @server.feature(t.TEXT_DOCUMENT_DID_SAVE, t.SaveOptions(include_text=False))
    def saved(params: t.DidSaveTextDocumentParams) -> None:
        session.document_saved(params.text_document.uri)


def ensure_settings(server: Server, session: Session) -> None:
    """Request the settings if the client sent no `initialized`: without settings the engine never starts."""
    if session.first_pull is None:
        session.first_pull = asyncio.ensure_future(_pull_settings(server, session))


def _completions(server: Server, session: Session) -> None:
    # Registered for every client: some clients support inline completion without announcing it. Without an options
    # object, pygls would leave the capability out.
    @server.feature(t.TEXT_DOCUMENT_INLINE_COMPLETION, t.InlineCompletionOptions())
    async def inline(params: t.InlineCompletionParams) -> t.InlineCompletionList | None:
        position, info = params.position, params.context.selected_completion_info
        invoked = params.context.trigger_kind is t.InlineCompletionTriggerKind.Invoked
        uri, place = params.text_document.uri, (position.line, position.character)
        change = session.follow_up(uri, place, invoked) if info is None else None
        if change is not None:
            item = t.InlineCompletionItem(insert_text=change.text, range=_changed(change))
            return t.InlineCompletionList(items=[item])
        found = await session.complete(uri, place, invoked, _selected(info))
        return None if found is None else t.InlineCompletionList(items=[_inline_item(one) for one in found])

    @server.feature(t.TEXT_DOCUMENT_COMPLETION, t.CompletionOptions())
    async def popup(params: t.CompletionParams) -> t.CompletionList | None:
        document = server.client_capabilities.text_document
        if document is not None and document.inline_completion is not None:
            return None  # the client shows the same text as inline completion
        position = params.position
        found = await session.complete(params.text_document.uri, (position.line, position.character), invoked=False)
        return t.CompletionList(is_incomplete=True, items=[_popup_item(one) for one in (found or [])[:1]])


def _follow_ups(server: Server, session: Session) -> None:
    options = t.CodeActionOptions(code_action_kinds=[FOLLOW_UP_KIND], resolve_provider=False)

    @server.feature(t.TEXT_DOCUMENT_CODE_ACTION, options)
    async def actions(params: t.CodeActionParams) -> list[t.CodeAction]:
        only = params.context.only
        if only is not None and not any(f"{FOLLOW_UP_KIND}.".startswith(f"{kind}.") for kind in map(_text, only)):
            return []
        found = await session.follow_up_action(params.text_document.uri, params.range.start.line, params.range.end.line)
        if found is None:
            return []
        edit = _workspace_edit(found, server.client_capabilities.workspace)
        return [t.CodeAction(title=found.title, kind=FOLLOW_UP_KIND, edit=edit)]


def _text(kind: t.CodeActionKind | str) -> str:
    return kind.value if isinstance(kind, t.CodeActionKind) else kind


def _workspace_edit(offered: Offered, client: t.WorkspaceClientCapabilities | None) -> t.WorkspaceEdit:
    """The edit in the richest form that the client reads: with a confirmation, with versions, or plain."""
    reads = client.workspace_edit if client is not None else None
    by_uri: dict[str, list[Change]] = {}
    for change in offered.changes:
        by_uri.setdefault(change.uri, []).append(change)
    if reads is None or not reads.document_changes:
        plain = {uri: [t.TextEdit(_changed(one), one.text) for one in found] for uri, found in by_uri.items()}
        return t.WorkspaceEdit(changes=plain)
    annotations = reads.change_annotation_support is not None
    changes: list[Any] = []
    for uri, found in by_uri.items():
        edits = [
            t.AnnotatedTextEdit(_ANNOTATION, _changed(one), one.text) if annotations
            else t.TextEdit(_changed(one), one.text)
            for one in found
        ]  # fmt: skip
        document = t.OptionalVersionedTextDocumentIdentifier(uri, found[0].version)
        changes.append(t.TextDocumentEdit(text_document=document, edits=edits))
    label = t.ChangeAnnotation(label=offered.label, needs_confirmation=True, description="C2L follow-up edit")
    return t.WorkspaceEdit(document_changes=changes, change_annotations={_ANNOTATION: label} if annotations else None)


def _changed(one: Change) -> t.Range:
    return t.Range(t.Position(one.line, one.start), t.Position(one.line, one.end))


def _settings(server: Server, session: Session) -> None:
    @server.feature(t.WORKSPACE_DID_CHANGE_CONFIGURATION)
    async def changed(params: t.DidChangeConfigurationParams) -> None:
        if _can_pull(server):
            await _pull_settings(server, session)
        else:
            values = params.settings if isinstance(params.settings, dict) else {}
            session.apply_settings({NO_FOLDER: values.get(SECTION, values)})


def _can_pull(server: Server) -> bool:
    workspace = server.client_capabilities.workspace
    return bool(workspace is not None and workspace.configuration)


async def _pull_settings(server: Server, session: Session) -> None:
    """Request the settings of every folder, and those outside of all. No response counts as no settings."""
    folders = list(session.folders)
    if not _can_pull(server):
        session.apply_settings({})
        return
    items = [t.ConfigurationItem(section=SECTION)]
    items += [t.ConfigurationItem(scope_uri=session.folders.uri(folder), section=SECTION) for folder in folders]
    values: list[Any] = []
    try:
        response = server.workspace_configuration_async(t.ConfigurationParams(items=items))
        values = list(await asyncio.wait_for(response, _RESPONSE_TIMEOUT) or [])
    except Exception as error:
        log.warning("The editor did not send its settings (%s).", type(error).__name__)
    if folders == list(session.folders):  # otherwise a later call, for other folders, is running
        session.apply_settings(dict(zip([NO_FOLDER, *folders], values, strict=False)))


async def _subscribe_to_settings(server: Server) -> None:
    """Register for settings changes: some editors send them only then."""
    workspace = server.client_capabilities.workspace
    changes = workspace.did_change_configuration if workspace is not None else None
    if changes is None or not changes.dynamic_registration:
        return
    method = t.WORKSPACE_DID_CHANGE_CONFIGURATION
    registration = t.Registration(id="c2l-settings", method=method, register_options={"section": SECTION})
    try:
        response = server.client_register_capability_async(t.RegistrationParams(registrations=[registration]))
        await asyncio.wait_for(response, _RESPONSE_TIMEOUT)
    except Exception as error:
        log.warning("The editor refused to send settings changes (%s).", type(error).__name__)


def _selected(info: t.SelectedCompletionInfo | None) -> Selected | None:
    if info is None:
        return None
    start, end = info.range.start, info.range.end
    return Selected((start.line, start.character), (end.line, end.character), info.text)


def _range(one: Insertion) -> t.Range:
    return t.Range(t.Position(one.line, one.start), t.Position(one.line, one.end))


def _accept(one: Insertion) -> t.Command:
    return t.Command(title="Accepted", command=Command.DID_ACCEPT.value, arguments=[one.id])


def _inline_item(one: Insertion) -> t.InlineCompletionItem:
    return t.InlineCompletionItem(insert_text=one.text, range=_range(one), command=_accept(one))


def _popup_item(one: Insertion) -> t.CompletionItem:
    # Clients filter out entries that do not start with the word at the cursor, so the entry includes that word.
    text = one.word + one.text
    label = text.strip().splitlines()[0][:80]
    replaced = t.Range(t.Position(one.line, one.word_start), t.Position(one.line, one.end))
    edit = t.TextEdit(range=replaced, new_text=text)
    return t.CompletionItem(
        label=label,
        kind=t.CompletionItemKind.Text,
        sort_text="\uffff",
        filter_text=label,
        text_edit=edit,
        insert_text_format=t.InsertTextFormat.PlainText,
        command=_accept(one),
        detail="C2L",
    )
