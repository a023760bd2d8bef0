/** Finds the command that starts the server by trying a list of sources in order. Does not use `vscode`, starts nothing. */

import { homedir } from "node:os";
import { join } from "node:path";

/** A Python program that is the server. `python -m` would import from the current folder. */
export const PROGRAM =
  "import sys; sys.path = [p for p in sys.path if p]; sys.argv[0] = 'c2l-lsp'; from c2l_lsp.__main__ import main; main()";

/** Variables that make Python import from other folders; they may name the opened one. */
const VARIABLES = [
  "PYTHONPATH",
  "PYTHONHOME",
  "PYTHONPLATLIBDIR",
  "PYTHONUSERBASE",
  "PYTHONPYCACHEPREFIX",
  "PYTHONEXECUTABLE",
  "PYTHONSTARTUP",
  "PYTHONINSPECT",
  "PYTHONBREAKPOINT",
  "PYTHONWARNINGS",
];

/** Returns the environment in which Python imports nothing of the opened folder. */
export function withoutPythonVariables(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const kept = Object.entries(environment).filter(([name]) => !VARIABLES.includes(name.toUpperCase()));
  return Object.fromEntries(kept);
}

export type LaunchSource = "path" | "interpreter" | "python-extension" | "own-environment" | "search-path";

/** The command line of the server, and the source that it was found through. */
export interface Launch {
  command: string;
  args: string[];
  source: LaunchSource;
}

export interface ServerSources {
  /** Values of c2l.server.path, c2l.server.interpreter and c2l.server.args; empty if not set. */
  path: string;
  interpreter: string;
  args: readonly string[];
  /** The Python of the environment that this extension sets up, whether it exists or not. */
  ownPython: string;
  /** Whether the workspace is trusted. An untrusted workspace must not choose the interpreter. */
  trusted: boolean;
  /** The interpreter selected in the Python extension. */
  activePython(): Promise<string | undefined>;
  /** Whether this Python has the server installed. */
  hasServer(python: string): Promise<boolean>;
  /** The c2l-lsp executable on the search path. */
  onSearchPath(): Promise<string | undefined>;
}

/** Returns the server's command, or undefined if no source has it. A command named in the settings is not checked. */
export async function findServer(sources: ServerSources): Promise<Launch | undefined> {
  const executable = (command: string, source: LaunchSource): Launch => ({
    command: expand(command),
    args: ["serve", "--stdio", ...sources.args],
    source,
  });
  const module = (python: string, source: LaunchSource): Launch => ({
    command: expand(python),
    args: ["-E", "-c", PROGRAM, "serve", "--stdio", ...sources.args],
    source,
  });
  if (sources.path !== "") return executable(sources.path, "path");
  if (sources.interpreter !== "") return module(sources.interpreter, "interpreter");
  const active = sources.trusted ? await sources.activePython() : undefined;
  if (active !== undefined && (await sources.hasServer(active))) return module(active, "python-extension");
  if (await sources.hasServer(sources.ownPython)) return module(sources.ownPython, "own-environment");
  const found = await sources.onSearchPath();
  return found === undefined ? undefined : executable(found, "search-path");
}

/** Returns the path of the Python inside a virtual environment. */
export function pythonOf(environment: string, platform: NodeJS.Platform = process.platform): string {
  return platform === "win32" ? join(environment, "Scripts", "python.exe") : join(environment, "bin", "python");
}

function expand(path: string): string {
  return path === "~" || path.startsWith("~/") ? join(homedir(), path.slice(1)) : path;
}
