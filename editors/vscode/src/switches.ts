/** What the user switched on and off: kept in the workspace's storage, so that it outlives server and window. No `vscode`. */

import type { Keep } from "./history";
import type { Switched } from "./protocol";

const KEY = "switches";
const MOST_DOCUMENTS = 200;

export class Switches {
  private off: boolean;
  private readonly documents: Map<string, boolean>;
  private readonly adaptersOff: Set<string>;
  private snoozedUntil: number;

  constructor(
    private readonly keep: Keep,
    private readonly now: () => number = Date.now,
  ) {
    const kept = keep.get<Switched>(KEY) ?? {};
    this.off = kept.off ?? false;
    this.documents = new Map(Object.entries(kept.documents ?? {}));
    this.adaptersOff = new Set(kept.adaptersOff);
    this.snoozedUntil = kept.snoozedUntil ?? 0;
  }

  /** What a server that starts is told. */
  state(): Switched {
    const snoozedUntil = this.snoozedUntil * 1000 > this.now() ? this.snoozedUntil : 0;
    return { off: this.off, documents: Object.fromEntries(this.documents), snoozedUntil, adaptersOff: [...this.adaptersOff] };
  }

  /** Whether the user turned a document on although its language may be off. */
  isOn(uri: string): boolean {
    return this.documents.get(uri) === true;
  }

  everything(enabled: boolean): void {
    this.off = !enabled;
    this.save();
  }

  document(uri: string, enabled: boolean): void {
    this.documents.delete(uri); // so that it becomes the newest
    this.documents.set(uri, enabled);
    for (const oldest of [...this.documents.keys()].slice(0, -MOST_DOCUMENTS)) this.documents.delete(oldest);
    this.save();
  }

  /** A document was closed: the server forgets its switch, too. */
  closed(uri: string): void {
    if (this.documents.delete(uri)) this.save();
  }

  /** `until` in seconds since the epoch, as the server answers; 0 is awake. */
  snoozed(until: number): void {
    this.snoozedUntil = until;
    this.save();
  }

  adapter(folder: string, enabled: boolean): void {
    if (enabled) this.adaptersOff.delete(folder);
    else this.adaptersOff.add(folder);
    this.save();
  }

  private save(): void {
    void this.keep.update(KEY, this.state());
  }
}
