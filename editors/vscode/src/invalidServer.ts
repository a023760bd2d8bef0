/** Detects a server named in the settings that cannot start, so that retrying is pointless. Does not use `vscode`. */

import type { Launch } from "./discovery";

export interface InvalidServerSetting {
  /** Key of the setting that names the server. */
  setting: string;
  sentence: string;
}

const SETTING_OF: Partial<Record<Launch["source"], string>> = {
  path: "c2l.server.path",
  interpreter: "c2l.server.interpreter",
};
const CAUSES: Record<string, string> = { ENOENT: "which does not exist", EACCES: "which may not be run" };

/**
 * Returns what is wrong with the setting, or undefined if another attempt may succeed. `error` is the error of spawning
 * the process, undefined if it was spawned and failed later.
 */
export async function invalidServerSetting(
  launch: Launch,
  error: NodeJS.ErrnoException | undefined,
  hasServer: (python: string) => Promise<boolean>,
): Promise<InvalidServerSetting | undefined> {
  const setting = SETTING_OF[launch.source];
  if (setting === undefined) return undefined;
  let cause = CAUSES[error?.code ?? ""];
  if (cause === undefined && launch.source === "interpreter" && !(await hasServer(launch.command))) {
    cause = "which has no c2l-lsp package";
  }
  return cause === undefined ? undefined : { setting, sentence: `${setting} names ${launch.command}, ${cause}.` };
}
