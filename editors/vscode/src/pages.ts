/** Read-only Markdown pages, shown with the editor's own preview. */

import { commands, type Disposable, EventEmitter, Uri, window, workspace } from "vscode";

const SCHEME = "c2l-page";

export class Pages implements Disposable {
  private readonly texts = new Map<string, string>();
  private readonly changed = new EventEmitter<Uri>();
  private readonly registered = workspace.registerTextDocumentContentProvider(SCHEME, {
    onDidChange: this.changed.event,
    provideTextDocumentContent: (uri) => this.texts.get(uri.path) ?? "",
  });

  async show(name: string, text: string): Promise<void> {
    const uri = Uri.from({ scheme: SCHEME, path: `/${name}.md` });
    this.texts.set(uri.path, text);
    this.changed.fire(uri);
    try {
      await commands.executeCommand("markdown.showPreview", uri);
    } catch {
      await window.showTextDocument(uri); // the editor's Markdown extension is disabled
    }
  }

  dispose(): void {
    this.registered.dispose();
    this.changed.dispose();
  }
}
