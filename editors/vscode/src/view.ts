/** The state of the extension as one observable value; status items, menu and panel render it. Does not use `vscode`. */

import type { AdapterStatus, StatisticsReport, Status } from "./protocol";

/**
 * State of the server process. `idle`: not started yet, because no folder or document needs it. `missing`: no Python with
 * the server was found, or the server named in the settings cannot start.
 */
export type ProcessState = "idle" | "stopped" | "missing" | "starting" | "running" | "restarting" | "crashed";

export interface View {
  processState: ProcessState;
  /** A sentence for `missing`, `restarting` and `crashed`; else empty. */
  processMessage: string;
  /** With `missing`: the setting that names a server which cannot start. */
  invalidSetting: string | undefined;
  /** Last status that the server sent. */
  status: Status | undefined;
  /** The adapter of the active document's folder. */
  adapter: AdapterStatus | undefined;
  /** Why the active document gets no completions; undefined if it does. */
  documentReason: string | undefined;
  /** Why the last request for the active document returned nothing. */
  lastReason: string | undefined;
  /** Language id of the active document. */
  language: string | undefined;
  statistics: StatisticsReport | undefined;
  /** Version of the running server. */
  serverVersion: string | undefined;
  /** Whether the workspace is trusted. */
  trusted: boolean;
}

export type Listener = (view: View) => void;

export class Store {
  private value: View = {
    processState: "stopped",
    processMessage: "",
    invalidSetting: undefined,
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

  /** Call `listener` after every change until the returned object is disposed. */
  listen(listener: Listener): { dispose(): void } {
    this.listeners.add(listener);
    return { dispose: () => this.listeners.delete(listener) };
  }
}
