/** Why a server that the user named can never start, however often it is tried. Knows no `vscode`. */

import type { Launch } from "./discovery";

export interface Unusable {
  /** The setting that names it. */
  setting: string;
  sentence: string;
}

const NAMED: Partial<Record<Launch["from"], string>> = { path: "c2l.server.path", interpreter: "c2l.server.interpreter" };
const WHY: Record<string, string> = { ENOENT: "which does not exist", EACCES: "which may not be run" };

/** Undefined if another try may help. `error` is what the start of the process ended with, if it did not even begin. */
export async function unusable(
  launch: Launch,
  error: NodeJS.ErrnoException | undefined,
  hasServer: (python: string) => Promise<boolean>,
): Promise<Unusable | undefined> {
  const setting = NAMED[launch.from];
  if (setting === undefined) return undefined;
  let why = WHY[error?.code ?? ""];
  if (why === undefined && launch.from === "interpreter" && !(await hasServer(launch.command))) {
    why = "which has no c2l-lsp package";
  }
  return why === undefined ? undefined : { setting, sentence: `${setting} names ${launch.command}, ${why}.` };
}
