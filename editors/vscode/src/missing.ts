/** The server is installed nowhere: told once in a window, and never again to a user who does not want to hear it. */

import type { Keep } from "./history";
import { SET_UP } from "./menu";
import { type Fix, openSettings } from "./problems";

const KEY = "missing.silenced";
/** Command of this extension alone, behind the button. */
export const SILENCE = "c2l.internal.silenceMissing";

/** Buttons for a server that cannot be found. */
export const MISSING_FIXES: Fix[] = [
  { title: "Set Up…", command: SET_UP },
  openSettings("c2l.server", "Choose Python…"),
  { title: "Don't Ask Again", command: SILENCE },
];

export class Missing {
  private told = false;

  constructor(private readonly keep: Keep) {}

  /** Whether to tell now; the status item says it in any case. */
  tells(): boolean {
    const first = !this.told && this.keep.get<boolean>(KEY) !== true;
    this.told = true;
    return first;
  }

  silence(): void {
    void this.keep.update(KEY, true);
  }

  /** The server was found: should it be lost one day, that is news. */
  found(): void {
    this.told = false;
    if (this.keep.get<boolean>(KEY) !== undefined) void this.keep.update(KEY, undefined);
  }
}
