/** Keeps the view fresh with what the server does not tell unasked: this document's reason, the counts, a new norm. */

import { type Disposable, window } from "vscode";
import type { Generations } from "./history";
import { type AdapterInfo, Method, type StatisticsReport, type Status } from "./protocol";
import type { Server } from "./server";
import type { Store } from "./view";

const SOON_MS = 150;
const AGAIN_MS = 2_000;
const COUNTS_EVERY_MS = 5_000;

export class Refresher implements Disposable {
  private timer: NodeJS.Timeout | undefined;
  private again: NodeJS.Timeout | undefined;
  private countedAt = 0;
  private asked = 0;

  constructor(
    private readonly store: Store,
    private readonly server: Server,
    private readonly generations: Generations,
  ) {}

  /** Something may have changed. Many calls at once ask the server once. */
  soon(): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.ask(), SOON_MS);
  }

  /** A folder has a new adapter: ask how large it is while it is the current one. */
  adapter(folder: string): void {
    this.server.request<AdapterInfo>(Method.ADAPTER_INFO, { folder }).then(
      (info) => {
        this.generations.measured(info);
        this.store.update({});
      },
      () => undefined, // the row stays without its norm
    );
  }

  dispose(): void {
    clearTimeout(this.timer);
    clearTimeout(this.again);
  }

  private async ask(): Promise<void> {
    const number = ++this.asked;
    const document = window.activeTextEditor?.document;
    const known = document !== undefined && ["file", "untitled"].includes(document.uri.scheme);
    try {
      const textDocument = known ? { uri: document.uri.toString() } : undefined;
      const status = await this.server.request<Status>(Method.STATUS, { textDocument });
      if (number !== this.asked) return; // a later question has, or will have, the newer answer
      const documentReason = known ? status.disabledReason : undefined;
      const lastReason = known ? status.lastReason : undefined;
      const adapter = status.adapter ?? undefined;
      this.store.update({ documentReason, lastReason, adapter, language: document?.languageId });
      if (adapter !== undefined && adapter.pendingFiles > 0 && !status.busy) this.askAgain(adapter.folder);
      await this.count();
    } catch {
      if (number === this.asked) this.store.update({ documentReason: undefined, lastReason: undefined, language: document?.languageId });
    }
  }

  /** Files that wait and turn out to be unchanged are settled without a word; asking makes the server tell. */
  private askAgain(folder: string): void {
    clearTimeout(this.again);
    this.again = setTimeout(() => {
      this.adapter(folder);
      this.soon();
    }, AGAIN_MS);
  }

  private async count(): Promise<void> {
    const now = Date.now();
    if (now - this.countedAt < COUNTS_EVERY_MS) return;
    this.countedAt = now;
    const statistics = await this.server.request<StatisticsReport>(Method.STATISTICS);
    this.store.update({ statistics });
  }
}
