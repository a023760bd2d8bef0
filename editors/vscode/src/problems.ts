/** Which button fixes a problem, and when a problem is shown at all. Knows no `vscode`. */

import { ClientCommand, Command, ErrorCode, type Problem } from "./protocol";

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
const WHY: Fix = { title: "Why", command: Command.SHOW_STATUS };
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

/** Button that opens a file of the user's; by path, since this module knows no `vscode`. */
export const OPEN_FILE = "c2l.internal.openFile";

/** Button that opens the settings at one; where they are is another place in a remote window. */
export const OPEN_SETTINGS = "c2l.internal.openSettings";

export function openSettings(setting: string, title = "Open Settings"): Fix {
  return { title, command: OPEN_SETTINGS, args: [setting] };
}

/** How loud a problem of the server is; a severity of a newer server is taken for a warning. */
export function levelOf(problem: Problem): Level {
  return problem.severity === "error" || problem.severity === "info" ? problem.severity : "warning";
}

/** Buttons for a problem of the server, the fixing one first. What a restart cannot mend does not offer one. */
export function fixesFor({ code, setting, file }: Problem): Fix[] {
  switch (code) {
    case ErrorCode.SETTING:
      if (file !== "") return [{ title: "Open File", command: OPEN_FILE, args: [file] }, LOG];
      return [openSettings(setting || "c2l"), LOG];
    case ErrorCode.MODEL:
      return [MODEL, LOG];
    case ErrorCode.ENGINE:
    case ErrorCode.WIRE:
      return [RESTART, LOG];
    default:
      return [WHY, LOG];
  }
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
