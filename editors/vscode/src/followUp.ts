/**
 * Shows the follow-up edit of the cursor's line: the new name behind the old one. Tab applies it, Escape hides it.
 *
 * VS Code draws inline completions as inserted text only, and requests none when the cursor moves. So the server's code
 * action, which lists the places, is requested here for the line, and the place on it is drawn as a decoration.
 */

import {
  commands,
  type Disposable,
  Range,
  type TextDocument,
  type TextEditor,
  ThemeColor,
  window,
  workspace,
  WorkspaceEdit,
} from "vscode";
import { type Action, nearest } from "./places";
import { SECTION } from "./protocol";
import type { Server } from "./server";

const DELAY_MS = 200;
const LANGUAGE = "python";
const VISIBLE = "c2l.followUpVisible";
const KIND = "refactor.rewrite";
export const ACCEPT_FOLLOW_UP = "c2l.internal.acceptFollowUp";
export const HIDE_FOLLOW_UP = "c2l.internal.hideFollowUp";

interface Shown {
  editor: TextEditor;
  version: number;
  range: Range;
  text: string;
}

export class FollowUp implements Disposable {
  private readonly decoration = window.createTextEditorDecorationType({
    textDecoration: "line-through",
    after: { color: new ThemeColor("editorGhostText.foreground"), fontStyle: "italic" },
  });
  private readonly subscriptions: Disposable[];
  private timer: NodeJS.Timeout | undefined;
  private shown: Shown | undefined;

  constructor(private readonly server: Pick<Server, "request">) {
    this.subscriptions = [
      window.onDidChangeTextEditorSelection(({ textEditor }) => {
        if (textEditor.selection.active.line !== this.shown?.range.start.line) this.hide();
        this.schedule();
      }),
      window.onDidChangeActiveTextEditor(() => {
        this.hide();
        this.schedule();
      }),
      workspace.onDidChangeTextDocument(({ document }) => {
        if (document === this.shown?.editor.document) this.hide();
      }),
      commands.registerCommand(ACCEPT_FOLLOW_UP, () => this.accept()),
      commands.registerCommand(HIDE_FOLLOW_UP, () => {
        this.hide();
      }),
    ];
  }

  dispose(): void {
    clearTimeout(this.timer);
    this.decoration.dispose();
    for (const one of this.subscriptions) one.dispose();
  }

  private schedule(): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.ask().catch(() => undefined), DELAY_MS); // the server may have ended
  }

  private async ask(): Promise<void> {
    const editor = window.activeTextEditor;
    if (editor === undefined || this.shown !== undefined || !isAsked(editor.document) || !editor.selection.isEmpty) return;
    const { document } = editor;
    const { version } = document;
    const cursor = editor.selection.active;
    const actions = await this.server.request<Action[] | null>("textDocument/codeAction", {
      textDocument: { uri: document.uri.toString() },
      range: { start: cursor, end: cursor },
      context: { diagnostics: [], only: [KIND] },
    });
    const same = window.activeTextEditor === editor && document.version === version && editor.selection.active.isEqual(cursor);
    const place = same ? nearest(actions ?? [], document.uri.toString(), version, cursor) : undefined;
    if (place === undefined) return;
    const { start, end } = place.range;
    const range = new Range(start.line, start.character, end.line, end.character);
    this.shown = { editor, version, range, text: place.newText };
    editor.setDecorations(this.decoration, [{ range, renderOptions: { after: { contentText: ` → ${place.newText}` } } }]);
    await commands.executeCommand("setContext", VISIBLE, true);
  }

  private async accept(): Promise<void> {
    const { shown } = this;
    this.hide();
    if (shown?.editor.document.version !== shown?.version || shown === undefined) return;
    const edit = new WorkspaceEdit();
    edit.replace(shown.editor.document.uri, shown.range, shown.text);
    await workspace.applyEdit(edit);
  }

  private hide(): void {
    if (this.shown === undefined) return;
    this.shown.editor.setDecorations(this.decoration, []);
    this.shown = undefined;
    void commands.executeCommand("setContext", VISIBLE, false);
  }
}

function isAsked(document: TextDocument): boolean {
  return document.languageId === LANGUAGE && workspace.getConfiguration(SECTION, document).get("followUp.enable", true);
}
