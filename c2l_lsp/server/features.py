"""LSP messages to calls of a Session, and answers back. Handlers translate; nothing is decided here."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from lsprotocol import types as t

from c2l_lsp.errors import C2LError
from c2l_lsp.server.completion.completions import Insertion
from c2l_lsp.server.completion.items import Selected
from c2l_lsp.server.session import Session
from c2l_lsp.server.transport import parent_watch
from c2l_lsp.server.transport.greeting import encoding
from c2l_lsp.server.transport.protocol import DID_CHANGE_TRUST, SECTION, Command, Switched, TrustParams, parse
from c2l_lsp.server.transport.rpc import Server
from c2l_lsp.server.workspace.documents import Edit
from c2l_lsp.server.workspace.settings import EVERYWHERE

log = logging.getLogger("c2l.lsp")
_ANSWER_WITHIN = 2.0


def register(server: Server, session: Session) -> None:
    """Register every standard feature."""
    _lifecycle(server, session)
    _documents(server, session)
    _completions(server, session)
    _settings(server, session)


def _lifecycle(server: Server, session: Session) -> None:
    @server.feature(t.INITIALIZE)
    def initialize(params: t.InitializeParams) -> None:
        general = params.capabilities.general
        session.documents.encoding = encoding(general.position_encodings if general is not None else None)
        options = params.initialization_options if isinstance(params.initialization_options, dict) else {}
        session.messages.structured = options.get("showsProblems") is True
        session.shown.infers = options.get("reportsPartialAccept") is not True
        session.layers.set_initial(options)
        _restore(session, options.get("switches"))
        window = params.capabilities.window
        session.bars.supported = bool(window is not None and window.work_done_progress)
        folders = [folder.uri for folder in params.workspace_folders or []]
        for uri in folders or ([params.root_uri] if params.root_uri else []):
            session.add_folder(uri)
        if params.process_id is not None and server.protocol.answered is None:  # else it is watched already
            parent_watch.watch(params.process_id, server.on_editor_lost)

    @server.feature(t.INITIALIZED)
    async def initialized(_: t.InitializedParams) -> None:
        await _pull(server, session)
        await _listen(server)

    @server.feature(t.WINDOW_WORK_DONE_PROGRESS_CANCEL)
    async def bar_cancelled(params: t.WorkDoneProgressCancelParams) -> None:
        await session.bar_cancelled(params.token)

    @server.feature(t.SHUTDOWN)
    def shutdown(_: None) -> None:
        session.begin_close()  # the engine may take a moment; the editor need not wait for it

    @server.feature(t.WORKSPACE_DID_CHANGE_WORKSPACE_FOLDERS)
    async def folders_changed(params: t.DidChangeWorkspaceFoldersParams) -> None:
        for folder in params.event.removed:
            session.remove_folder(folder.uri)
        for folder in params.event.added:
            session.add_folder(folder.uri)
        await _pull(server, session)

    @server.feature(DID_CHANGE_TRUST)
    def trust_changed(params: Any) -> None:  # noqa: ANN401 - plain values, parsed below
        session.trust(parse(params, TrustParams).trusted)


def _restore(session: Session, switches: object) -> None:
    try:
        switched = parse(switches, Switched)
    except C2LError as error:  # a session without them is better than none
        log.warning("What was switched off before is not known: %s", error)
        return
    session.switches.restore(switched)
    session.engine.disabled.update(switched.adapters_off)


def _documents(server: Server, session: Session) -> None:
    @server.feature(t.TEXT_DOCUMENT_DID_OPEN)
    def opened(params: t.DidOpenTextDocumentParams) -> None:
        item = params.text_document
        session.opened(item.uri, str(item.language_id), item.version, item.text)

    @server.feature(t.TEXT_DOCUMENT_DID_CHANGE)
    def changed(params: t.DidChangeTextDocumentParams) -> None:
        edits = [_edit(change) for change in params.content_changes]
        session.edited(params.text_document.uri, params.text_document.version, edits)

    @server.feature(t.TEXT_DOCUMENT_DID_CLOSE)
    def closed(params: t.DidCloseTextDocumentParams) -> None:
        session.closed(params.text_document.uri)

    @server.feature(t.TEXT_DOCUMENT_DID_SAVE, t.SaveOptions(include_text=False))
    def saved(params: t.DidSaveTextDocumentParams) -> None:
        session.saved(params.text_document.uri)


def _completions(server: Server, session: Session) -> None:
    # Registered at once and for every client: advertising depends on the options object (pygls leaves the capability
    # out without one), and some clients that support inline completion do not announce it.
    @server.feature(t.TEXT_DOCUMENT_INLINE_COMPLETION, t.InlineCompletionOptions())
    async def inline(params: t.InlineCompletionParams) -> t.InlineCompletionList | None:
        at, info = params.position, params.context.selected_completion_info
        invoked = params.context.trigger_kind is t.InlineCompletionTriggerKind.Invoked
        found = await session.complete(params.text_document.uri, (at.line, at.character), invoked, _selected(info))
        return None if found is None else t.InlineCompletionList(items=[_inline_item(one) for one in found])

    @server.feature(t.TEXT_DOCUMENT_COMPLETION, t.CompletionOptions())
    async def popup(params: t.CompletionParams) -> t.CompletionList | None:
        document = server.client_capabilities.text_document
        if document is not None and document.inline_completion is not None:
            return None  # it shows the same text as ghost text already
        at = params.position
        found = await session.complete(params.text_document.uri, (at.line, at.character), invoked=False)
        return t.CompletionList(is_incomplete=True, items=[_popup_item(one) for one in (found or [])[:1]])


def _settings(server: Server, session: Session) -> None:
    @server.feature(t.WORKSPACE_DID_CHANGE_CONFIGURATION)
    async def changed(params: t.DidChangeConfigurationParams) -> None:
        if _can_pull(server):
            await _pull(server, session)
        else:
            values = params.settings if isinstance(params.settings, dict) else {}
            session.configured({EVERYWHERE: values.get(SECTION, values)})


def _can_pull(server: Server) -> bool:
    workspace = server.client_capabilities.workspace
    return bool(workspace is not None and workspace.configuration)


async def _pull(server: Server, session: Session) -> None:
    """Ask for the settings of every folder and of none. An editor that does not answer has no settings."""
    folders = list(session.folders)
    if not _can_pull(server):
        session.configured({})
        return
    items = [t.ConfigurationItem(section=SECTION)]
    items += [t.ConfigurationItem(scope_uri=session.folders.uri(folder), section=SECTION) for folder in folders]
    values: list[Any] = []
    try:
        asked = server.workspace_configuration_async(t.ConfigurationParams(items=items))
        values = list(await asyncio.wait_for(asked, _ANSWER_WITHIN) or [])
    except Exception as error:
        log.warning("The editor did not give its settings (%s).", type(error).__name__)
    if folders == list(session.folders):  # else a later pull, for other folders, is under way
        session.configured(dict(zip([EVERYWHERE, *folders], values, strict=False)))


async def _listen(server: Server) -> None:
    """Some editors tell changes of settings only to who asked for them."""
    workspace = server.client_capabilities.workspace
    changes = workspace.did_change_configuration if workspace is not None else None
    if changes is None or not changes.dynamic_registration:
        return
    method = t.WORKSPACE_DID_CHANGE_CONFIGURATION
    wish = t.Registration(id="c2l-settings", method=method, register_options={"section": SECTION})
    try:
        asked = server.client_register_capability_async(t.RegistrationParams(registrations=[wish]))
        await asyncio.wait_for(asked, _ANSWER_WITHIN)
    except Exception as error:
        log.warning("The editor did not register for settings (%s).", type(error).__name__)


def _edit(change: t.TextDocumentContentChangeEvent) -> Edit:
    if isinstance(change, t.TextDocumentContentChangePartial):
        start, end = change.range.start, change.range.end
        return Edit(change.text, (start.line, start.character), (end.line, end.character))
    return Edit(change.text)


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
    # Clients drop what does not begin with the word at the cursor: the entry is that word and how it goes on.
    whole = one.word + one.text
    label = whole.strip().splitlines()[0][:80]
    place = t.Range(t.Position(one.line, one.word_start), t.Position(one.line, one.end))
    edit = t.TextEdit(range=place, new_text=whole)
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
