/** Tells the server where the cursor rests: it reads the text there before the first key is typed. */

import { type Disposable, window } from "vscode";
import { isServed } from "./documents";
import type { Server } from "./server";
import type { Store } from "./view";

const DELAY_MS = 100;

export class CursorReports implements Disposable {
  private timer: NodeJS.Timeout | undefined;
  private readonly listening: Disposable[];
  private running = false;

  constructor(
    store: Store,
    private readonly server: Server,
  ) {
    const schedule = (): void => {
      this.schedule();
    };
    store.listen(({ processState }) => {
      const started = processState === "running" && !this.running;
      this.running = processState === "running";
      if (started) this.schedule(); // the file was open before the server
    });
    this.listening = [window.onDidChangeActiveTextEditor(schedule), window.onDidChangeTextEditorSelection(schedule)];
  }

  dispose(): void {
    clearTimeout(this.timer);
    for (const one of this.listening) one.dispose();
  }

  private schedule(): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.report(), DELAY_MS);
  }

  private async report(): Promise<void> {
    const editor = window.activeTextEditor;
    if (editor === undefined || !isServed(editor.document)) return;
    const { line, character } = editor.selection.active;
    const params = { textDocument: { uri: editor.document.uri.toString() }, position: { line, character } };
    await this.server.notifyCursor(params).catch(() => undefined); // the server exited, which is reported elsewhere
  }
}
