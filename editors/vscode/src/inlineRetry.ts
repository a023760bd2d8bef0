/**
 * Lets the user trigger a completion again at a position where the last explicit request returned nothing.
 *
 * VS Code caches an empty result of an explicit request and asks no provider again until the text or the cursor moves,
 * although the model may have loaded or completions may have been turned on meanwhile. The cached result is valid only
 * for the set of providers that produced it. Replacing a provider that never returns anything invalidates the cache.
 */

import { type Disposable, languages } from "vscode";
import { SELECTOR } from "./documents";

export class InlineRetry implements Disposable {
  private registration: Disposable | undefined;

  /** Invalidate VS Code's cached empty result. */
  allow(): void {
    const previous = this.registration;
    const empty = { provideInlineCompletionItems: () => undefined };
    this.registration = languages.registerInlineCompletionItemProvider(SELECTOR, empty);
    previous?.dispose();
  }

  dispose(): void {
    this.registration?.dispose();
  }
}
