/** Which button fixes a problem, and when a problem is shown at all. Knows no `vscode`. */

import { ClientCommand, Command } from "./protocol";

export type Level = "error" | "warning" | "info";
export type Wanted = "off" | "onError" | "onWarning" | "always";

/** A button: what it says, and the command behind it. */
export interface Fix {
  title: string;
  command: string;
  args?: unknown[];
}

const LOG: Fix = { title: "Show Log", command: ClientCommand.SHOW_LOGS };
const RESTART: Fix = { title: "Restart", command: Command.RESTART_SERVER };
const MODEL: Fix = { title: "Select Model…", command: ClientCommand.SELECT_MODEL };
const LOUDNESS: Record<Wanted, readonly Level[]> = {
  off: [],
  onError: ["error"],
  onWarning: ["error", "warning"],
  always: ["error", "warning", "info"],
};

export function isWanted(level: Level, wanted: Wanted): boolean {
  return LOUDNESS[wanted].includes(level);
}

/** Buttons for a sentence of the server, the fixing one first. */
export function fixesFor(sentence: string): Fix[] {
  const setting = /\bc2l(?:\.[A-Za-z]+)+\b/.exec(sentence)?.[0];
  if (setting !== undefined && /\bis (?:left at its default|set in)\b/.test(sentence)) {
    return [{ title: "Open Settings", command: "workbench.action.openSettings", args: [setting] }, LOG];
  }
  if (/\bmodel\b/i.test(sentence) && /cannot be (?:found|read|run)|not found/i.test(sentence)) return [MODEL, LOG];
  return [RESTART, LOG];
}

/** Remembers what is on screen, so that a problem that comes again while shown is not shown twice. */
export class Open {
  private readonly keys = new Set<string>();

  /** False if this problem is on screen already. */
  begin(key: string): boolean {
    if (this.keys.has(key)) return false;
    this.keys.add(key);
    return true;
  }

  end(key: string): void {
    this.keys.delete(key);
  }
}
