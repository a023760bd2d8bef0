/** Why there is no completion, in a sentence. */

import { type Reason, SENTENCES } from "./protocol";

/** The sentence of a reason; a reason of a newer server is shown as it came. */
export function sentenceOf(reason: string): string {
  return reason in SENTENCES ? SENTENCES[reason as Reason] : `No completions: ${reason}.`;
}
