/** In-memory storage for tests. */

import type { Memento } from "../src/history";

/** Returns an empty memento that copies values when they are written, as VS Code does. */
export function memento(): Memento {
  const stored: Record<string, unknown> = {};
  return {
    get: <T>(key: string) => stored[key] as T | undefined,
    update: (key, value) => {
      stored[key] = structuredClone(value);
      return Promise.resolve();
    },
  };
}
