/** Reads the size of each folder's state directory from `c2l-lsp status --json`. Does not use `vscode`. */

import type { Launch } from "./discovery";
import { run } from "./processes";

const TIMEOUT_MS = 60_000;

/** Returns MB by folder; empty if the command fails. `cwd` must be safe: Python imports from it. */
export async function diskUse(cwd: string, launch: Launch | undefined): Promise<Map<string, number>> {
  const at = launch?.args.indexOf("serve") ?? -1;
  if (launch === undefined || at < 0) return new Map();
  const lines: string[] = [];
  try {
    const args = [...launch.args.slice(0, at), "status", "--json"];
    const collect = (line: string, stream: string): void => {
      if (stream === "stdout") lines.push(line);
    };
    await run(cwd, launch.command, args, collect, AbortSignal.timeout(TIMEOUT_MS));
    return parse(lines.join("\n"));
  } catch {
    return new Map();
  }
}

export function parse(json: string): Map<string, number> {
  const status = JSON.parse(json) as { folders?: { folder: string; mb: number }[] };
  return new Map((status.folders ?? []).map(({ folder, mb }) => [folder, mb]));
}
