/** What the extension knows at this moment, in one observable value. Items, menu and panel draw it. Knows no `vscode`. */

import type { AdapterStatus, StatisticsReport, Status } from "./protocol";

/**
 * The server process as this extension sees it. `missing`: no Python with the server was found,
 * or the named one can never start. `idle`: nothing is open
 * that it could serve, so it was not started yet.
 */
export type Life = "idle" | "stopped" | "missing" | "starting" | "running" | "restarting" | "crashed";

export interface View {
  life: Life;
  /** A sentence for `missing` and `crashed`. */
  lifeMessage: string;
  /** The setting to change, for a `missing` server that the user named. */
  lifeSetting: string | undefined;
  status: Status | undefined;
  /** The adapter of the active document's folder, by the server's last word. */
  adapter: AdapterStatus | undefined;
  /** Why the active document gets nothing, by the server's last word. */
  documentReason: string | undefined;
  /** Why its last request got nothing, if it got nothing. */
  lastReason: string | undefined;
  /** Language id of the active document. */
  language: string | undefined;
  statistics: StatisticsReport | undefined;
  /** Version of the running server. */
  serverVersion: string | undefined;
  trusted: boolean;
}

export type Listener = (view: View) => void;

export class Store {
  private value: View = {
    life: "stopped",
    lifeMessage: "",
    lifeSetting: undefined,
    status: undefined,
    adapter: undefined,
    documentReason: undefined,
    lastReason: undefined,
    language: undefined,
    statistics: undefined,
    serverVersion: undefined,
    trusted: true,
  };
  private readonly listeners = new Set<Listener>();

  get view(): View {
    return this.value;
  }

  update(change: Partial<View>): void {
    this.value = { ...this.value, ...change };
    for (const listener of [...this.listeners]) listener(this.value);
  }

  /** Call the listener after every change; the answer ends that. */
  listen(listener: Listener): { dispose(): void } {
    this.listeners.add(listener);
    return { dispose: () => this.listeners.delete(listener) };
  }
}
