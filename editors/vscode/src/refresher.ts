/** Polls the server for what it does not send on its own: the document's reason, statistics, norms of adapters. */

import { type Disposable, window } from "vscode";
import { isServed } from "./documents";
import type { Generations } from "./history";
import { type AdapterInfo, Method, type StatisticsReport, type Status } from "./protocol";
import type { Server } from "./server";
import type { Store } from "./view";

const DELAY_MS = 150;
const PENDING_FILES_DELAY_MS = 2_000;
const STATISTICS_INTERVAL_MS = 5_000;

export class Refresher implements Disposable {
  private timer: NodeJS.Timeout | undefined;
  private pendingFilesTimer: NodeJS.Timeout | undefined;
  private statisticsAt = 0;
  private lastRequest = 0;

  constructor(
    private readonly store: Store,
    private readonly server: Server,
    private readonly generations: Generations,
  ) {}

  /** Request the status soon, because something may have changed. Many calls within the delay make one request. */
  schedule(): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.refresh(), DELAY_MS);
  }

  /** Request norm and rank of a new adapter, which the server knows only while it is the current one. */
  refreshAdapter(folder: string): void {
    this.server.request<AdapterInfo>(Method.ADAPTER_INFO, { folder }).then(
      (info) => {
        this.generations.measured(info);
        this.store.update({});
      },
      () => undefined, // the row stays without a norm
    );
  }

  dispose(): void {
    clearTimeout(this.timer);
    clearTimeout(this.pendingFilesTimer);
  }

  private async refresh(): Promise<void> {
    const request = ++this.lastRequest;
    const document = window.activeTextEditor?.document;
    const supported = document !== undefined && isServed(document);
    try {
      const textDocument = supported ? { uri: document.uri.toString() } : undefined;
      const status = await this.server.request<Status>(Method.STATUS, { textDocument });
      if (request !== this.lastRequest) return; // a later request returns a newer status
      const documentReason = supported ? status.disabledReason : undefined;
      const lastReason = supported ? status.lastReason : undefined;
      const adapter = status.adapter ?? undefined;
      this.store.update({ documentReason, lastReason, adapter, language: document?.languageId });
      if (adapter !== undefined && adapter.pendingFiles > 0 && !status.busy) this.checkPendingFiles(adapter.folder);
      await this.refreshStatistics();
    } catch {
      if (request === this.lastRequest) this.store.update({ documentReason: undefined, lastReason: undefined, language: document?.languageId });
    }
  }

  /** The server sends no notification when pending files turn out to be unchanged, so their count is requested again. */
  private checkPendingFiles(folder: string): void {
    clearTimeout(this.pendingFilesTimer);
    this.pendingFilesTimer = setTimeout(() => {
      this.refreshAdapter(folder);
      this.schedule();
    }, PENDING_FILES_DELAY_MS);
  }

  private async refreshStatistics(): Promise<void> {
    const now = Date.now();
    if (now - this.statisticsAt < STATISTICS_INTERVAL_MS) return;
    this.statisticsAt = now;
    const statistics = await this.server.request<StatisticsReport>(Method.STATISTICS);
    this.store.update({ statistics });
  }
}
