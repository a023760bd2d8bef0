/** Read-only Markdown pages, shown in VS Code's Markdown preview. */

import { commands, type Disposable, EventEmitter, Uri, window, workspace } from "vscode";

const SCHEME = "c2l-page";

export class Pages implements Disposable {
  private readonly texts = new Map<string, string>();
  private readonly changed = new EventEmitter<Uri>();
  private readonly registered = workspace.registerTextDocumentContentProvider(SCHEME, {
    onDidChange: this.changed.event,
    provideTextDocumentContent: (uri) => this.texts.get(uri.path) ?? "",
  });

  /** Show `text` as the page `name`; replaces the text of a page that is open. */
  async show(name: string, text: string): Promise<void> {
    const uri = Uri.from({ scheme: SCHEME, path: `/${name}.md` });
    this.texts.set(uri.path, text);
    this.changed.fire(uri);
    try {
      await commands.executeCommand("markdown.showPreview", uri);
    } catch {
      await window.showTextDocument(uri); // the built-in Markdown extension is disabled
    }
  }

  dispose(): void {
    this.registered.dispose();
    this.changed.dispose();
  }
}
