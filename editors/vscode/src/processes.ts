/** Child processes: run one to completion, find an executable, start a server. Does not use `vscode`. */

import { spawn, type ChildProcessWithoutNullStreams } from "node:child_process";
import { constants } from "node:fs";
import { access } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { createInterface } from "node:readline";
import { withoutPythonVariables } from "./discovery";

const PROBE_MS = 20_000;

/** Run a program in `cwd` to completion. Rejects with its last three lines of output if it fails. */
export function run(
  cwd: string,
  command: string,
  args: readonly string[],
  onLine: (line: string, stream: "stdout" | "stderr") => void,
  signal: AbortSignal,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const last: string[] = [];
    const child = spawn(command, [...args], { cwd, signal, env: withoutPythonVariables(process.env), stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of ["stdout", "stderr"] as const) {
      createInterface({ input: child[stream] }).on("line", (line) => {
        last.push(line);
        if (last.length > 3) last.shift();
        onLine(line, stream);
      });
    }
    child.once("error", reject);
    child.once("close", (code) => {
      if (code === 0) resolve();
      else reject(new Error(last.join(" ") || `${command} exited with code ${String(code)}`));
    });
  });
}

/** Returns whether this Python exists and has the server installed. `cwd` must be safe: Python imports from it. */
export async function hasServer(cwd: string, python: string): Promise<boolean> {
  const probe = "import importlib.util, sys; sys.exit(importlib.util.find_spec('c2l_lsp') is None)";
  try {
    await run(cwd, python, ["-E", "-c", probe], () => undefined, AbortSignal.timeout(PROBE_MS));
    return true;
  } catch {
    return false;
  }
}

/** Returns the path of an executable on PATH. Relative entries are skipped: they depend on the working directory. */
export async function which(name: string): Promise<string | undefined> {
  const extensions = process.platform === "win32" ? [".exe", ".cmd"] : [""];
  for (const folder of (process.env["PATH"] ?? "").split(delimiter)) {
    if (!/^([A-Za-z]:)?[\\/]/.test(folder)) continue;
    for (const extension of extensions) {
      const file = join(folder, name + extension);
      try {
        await access(file, constants.X_OK);
        return file;
      } catch {
        // not in this folder
      }
    }
  }
  return undefined;
}

/** Start a server; resolves once its process exists and rejects if it cannot be spawned. */
export function startProcess(cwd: string, command: string, args: readonly string[]): Promise<ChildProcessWithoutNullStreams> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, [...args], { cwd, env: withoutPythonVariables(process.env), stdio: "pipe" });
    child.once("error", reject);
    child.once("spawn", () => {
      child.off("error", reject);
      child.on("error", () => undefined); // a later failure closes its streams, which the client reports
      resolve(child);
    });
  });
}
