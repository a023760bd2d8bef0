/** Problems: severity, whether one is shown, and the buttons that fix it. Does not use `vscode`. */

import { ClientCommand, Command, ErrorCode, type Problem } from "./protocol";

export type Level = "error" | "warning" | "info";
/** Values of c2l.showNotifications. */
export type NotificationSetting = "off" | "onError" | "onWarning" | "always";

/** A button of a notification and the command that it runs. */
export interface Fix {
  title: string;
  command: string;
  args?: unknown[];
}

const LOG: Fix = { title: "Show Log", command: ClientCommand.SHOW_LOGS };
const RESTART: Fix = { title: "Restart", command: Command.RESTART_SERVER };
const STATUS: Fix = { title: "Show Status", command: Command.SHOW_STATUS };
const MODEL: Fix = { title: "Select Model…", command: ClientCommand.SELECT_MODEL };
const LEVELS: Record<NotificationSetting, readonly Level[]> = {
  off: [],
  onError: ["error"],
  onWarning: ["error", "warning"],
  always: ["error", "warning", "info"],
};

export function isShown(level: Level, setting: NotificationSetting): boolean {
  return LEVELS[setting].includes(level);
}

/** Internal command that opens a file, given by path because this module does not use `vscode`. */
export const OPEN_FILE = "c2l.internal.openFile";

/** Internal command that opens the settings at one key; a remote window has its own settings page. */
export const OPEN_SETTINGS = "c2l.internal.openSettings";

export function openSettings(setting: string, title = "Open Settings"): Fix {
  return { title, command: OPEN_SETTINGS, args: [setting] };
}

/** Returns the level of a server's problem. A severity that this version does not know counts as a warning. */
export function levelOf(problem: Problem): Level {
  return problem.severity === "error" || problem.severity === "info" ? problem.severity : "warning";
}

/** Returns the buttons for a server's problem, the most useful first. A restart is offered only if it can help. */
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
      return [STATUS, LOG];
  }
}

/** The messages on screen, so that none is shown twice at a time. */
export class OpenMessages {
  private readonly keys = new Set<string>();

  /** Returns false if the message is on screen already. */
  add(key: string): boolean {
    if (this.keys.has(key)) return false;
    this.keys.add(key);
    return true;
  }

  remove(key: string): void {
    this.keys.delete(key);
  }
}
