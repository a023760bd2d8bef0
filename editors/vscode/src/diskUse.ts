/** How much disk each folder's state takes, from the server's command line. Knows no `vscode`. */

import type { Launch } from "./discovery";
import { run } from "./processes";

const WITHIN_MS = 60_000;

/** MB by folder; empty if the command line cannot say. */
export async function diskUse(cwd: string, launch: Launch | undefined): Promise<Map<string, number>> {
  const at = launch?.args.indexOf("serve") ?? -1;
  if (launch === undefined || at < 0) return new Map();
  const lines: string[] = [];
  try {
    const args = [...launch.args.slice(0, at), "status", "--json"];
    const keep = (line: string, stream: string): void => {
      if (stream === "stdout") lines.push(line);
    };
    await run(cwd, launch.command, args, keep, AbortSignal.timeout(WITHIN_MS));
    return parse(lines.join("\n"));
  } catch {
    return new Map();
  }
}

export function parse(json: string): Map<string, number> {
  const told = JSON.parse(json) as { folders?: { folder: string; mb: number }[] };
  return new Map((told.folders ?? []).map(({ folder, mb }) => [folder, mb]));
}
