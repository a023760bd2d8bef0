/**
 * Lets the user ask again where a request was in vain.
 *
 * VS Code remembers that an explicit request at a place got nothing, and asks nobody there again until the text or the
 * cursor moves, although the model may be loaded or completions turned on by now. A remembered answer counts only while
 * every provider had part in it: so a provider that never has anything is exchanged for a new one.
 */

import { type Disposable, languages } from "vscode";

const SELECTOR = [{ scheme: "file" }, { scheme: "untitled" }];

export class Again implements Disposable {
  private registered: Disposable | undefined;

  /** The last answer was empty: the next request is to be made. */
  allow(): void {
    const before = this.registered;
    const nothing = { provideInlineCompletionItems: () => undefined };
    this.registered = languages.registerInlineCompletionItemProvider(SELECTOR, nothing);
    before?.dispose();
  }

  dispose(): void {
    this.registered?.dispose();
  }
}
