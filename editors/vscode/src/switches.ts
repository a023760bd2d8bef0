/** What the user turned on or off, persisted in the workspace's storage across windows and servers. No `vscode`. */

import type { Memento } from "./history";
import type { Switched } from "./protocol";

const KEY = "switches";
const MAX_DOCUMENTS = 200;

export class Switches {
  private off: boolean;
  private readonly documents: Map<string, boolean>;
  private readonly adaptersOff: Set<string>;
  /** Seconds since the epoch; 0: not snoozed. */
  private snoozedUntil: number;

  constructor(
    private readonly memento: Memento,
    private readonly now: () => number = Date.now,
  ) {
    const saved = memento.get<Switched>(KEY) ?? {};
    this.off = saved.off ?? false;
    this.documents = new Map(Object.entries(saved.documents ?? {}));
    this.adaptersOff = new Set(saved.adaptersOff);
    this.snoozedUntil = saved.snoozedUntil ?? 0;
  }

  /** Returns the switches for the initialization options of a new server. */
  state(): Switched {
    const snoozedUntil = this.snoozedUntil * 1000 > this.now() ? this.snoozedUntil : 0;
    return { off: this.off, documents: Object.fromEntries(this.documents), snoozedUntil, adaptersOff: [...this.adaptersOff] };
  }

  /** Returns whether the user turned on this document, which overrides its language's setting. */
  isOn(uri: string): boolean {
    return this.documents.get(uri) === true;
  }

  setAll(enabled: boolean): void {
    this.off = !enabled;
    this.save();
  }

  setDocument(uri: string, enabled: boolean): void {
    this.documents.delete(uri); // insertion order is age: make this document the newest
    this.documents.set(uri, enabled);
    for (const oldest of [...this.documents.keys()].slice(0, -MAX_DOCUMENTS)) this.documents.delete(oldest);
    this.save();
  }

  /** Forget a document that was closed, as the server does. */
  forgetDocument(uri: string): void {
    if (this.documents.delete(uri)) this.save();
  }

  /** `until` in seconds since the epoch, as the server returns it; 0 ends the snooze. */
  setSnooze(until: number): void {
    this.snoozedUntil = until;
    this.save();
  }

  setAdapter(folder: string, enabled: boolean): void {
    if (enabled) this.adaptersOff.delete(folder);
    else this.adaptersOff.add(folder);
    this.save();
  }

  private save(): void {
    void this.memento.update(KEY, this.state());
  }
}
