/** Prompts once per window when no installation of the server is found, and never again once the user declines. */

import type { Memento } from "./history";
import { SET_UP } from "./menu";
import { type Fix, openSettings } from "./problems";

const KEY = "missing.silenced";
/** Internal command behind the button "Don't Ask Again". */
export const DONT_ASK_AGAIN = "c2l.internal.silenceMissing";

/** Buttons of the notification. */
export const MISSING_FIXES: Fix[] = [
  { title: "Set Up…", command: SET_UP },
  openSettings("c2l.server", "Choose Python…"),
  { title: "Don't Ask Again", command: DONT_ASK_AGAIN },
];

export class MissingServerPrompt {
  private prompted = false;

  constructor(private readonly memento: Memento) {}

  /** Whether to show the notification now; the status item shows the problem in any case. */
  shouldPrompt(): boolean {
    const first = !this.prompted && this.memento.get<boolean>(KEY) !== true;
    this.prompted = true;
    return first;
  }

  silence(): void {
    void this.memento.update(KEY, true);
  }

  /** The server was found: reset, so that a server that disappears later is reported again. */
  serverFound(): void {
    this.prompted = false;
    if (this.memento.get<boolean>(KEY) !== undefined) void this.memento.update(KEY, undefined);
  }
}
