/** Sentences for the reasons why there is no completion. */

import { type Reason, SENTENCES } from "./protocol";

/** Returns the sentence of a reason. A reason that this version does not know (a newer server) is shown as is. */
export function sentenceOf(reason: string): string {
  return reason in SENTENCES ? SENTENCES[reason as Reason] : `No completions: ${reason}.`;
}
