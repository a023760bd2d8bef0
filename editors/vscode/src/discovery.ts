/** Which command starts the server: a list of places, tried in order. Knows no `vscode` and starts nothing itself. */

import { homedir } from "node:os";
import { join } from "node:path";

export type From = "path" | "interpreter" | "python-extension" | "own-environment" | "search-path";

/** How to start the server, and which of the places that came from. */
export interface Launch {
  command: string;
  args: string[];
  from: From;
}

export interface Places {
  /** c2l.server.path, c2l.server.interpreter and c2l.server.args. */
  path: string;
  interpreter: string;
  args: readonly string[];
  /** The Python of the environment this extension set up, whether it exists or not. */
  ownPython: string;
  /** The workspace is trusted. In others no interpreter is taken that the workspace could have chosen. */
  trusted: boolean;
  /** The interpreter selected in the Python extension. */
  activePython(): Promise<string | undefined>;
  /** Whether this Python has the server installed. */
  hasServer(python: string): Promise<boolean>;
  /** The c2l-lsp executable on the search path. */
  onSearchPath(): Promise<string | undefined>;
}

/** The server's command, or undefined if it is installed nowhere. What the user named is taken unasked. */
export async function findServer(places: Places): Promise<Launch | undefined> {
  const executable = (command: string, from: From): Launch => ({
    command: expand(command),
    args: ["serve", "--stdio", ...places.args],
    from,
  });
  const module = (python: string, from: From): Launch => ({
    command: expand(python),
    args: ["-m", "c2l_lsp", "serve", "--stdio", ...places.args],
    from,
  });
  if (places.path !== "") return executable(places.path, "path");
  if (places.interpreter !== "") return module(places.interpreter, "interpreter");
  const active = places.trusted ? await places.activePython() : undefined;
  if (active !== undefined && (await places.hasServer(active))) return module(active, "python-extension");
  if (await places.hasServer(places.ownPython)) return module(places.ownPython, "own-environment");
  const found = await places.onSearchPath();
  return found === undefined ? undefined : executable(found, "search-path");
}

/** The Python inside a virtual environment. */
export function pythonOf(environment: string, platform: NodeJS.Platform = process.platform): string {
  return platform === "win32" ? join(environment, "Scripts", "python.exe") : join(environment, "bin", "python");
}

function expand(path: string): string {
  return path === "~" || path.startsWith("~/") ? join(homedir(), path.slice(1)) : path;
}
