/** Creates a Python environment with the server installed. A failed or cancelled attempt is removed. */

/** Runs a program to completion and passes its output on by line. Rejects if it fails or `signal` aborts it. */
export type Run = (
  command: string,
  args: readonly string[],
  onLine: (line: string) => void,
  signal: AbortSignal,
) => Promise<void>;

export interface SetUpTask {
  /** Candidates for the Python that creates the environment, in order of preference. */
  basePythons: readonly string[];
  /** Path of the environment, and of the Python inside it. */
  folder: string;
  python: string;
  /** The requirement that pip installs. */
  requirement: string;
  run: Run;
  remove: (folder: string) => Promise<void>;
  onLine: (line: string) => void;
  onStep: (step: string) => void;
}

export class SetUpError extends Error {}

const VERSION_CHECK = "import sys; sys.exit(sys.version_info < (3, 10))";

/** Create the environment. Throws SetUpError with a sentence for the user, or the signal's own error when cancelled. */
export async function setUp(task: SetUpTask, signal: AbortSignal): Promise<void> {
  task.onStep("Looking for Python 3.10 or newer");
  const base = await firstUsable(task, signal);
  try {
    task.onStep("Creating the environment");
    await task.run(base, ["-m", "venv", "--clear", task.folder], task.onLine, signal);
    task.onStep(`Installing ${task.requirement}`);
    const pip = ["-m", "pip", "install", "--disable-pip-version-check", "--no-input", task.requirement];
    await task.run(task.python, pip, task.onLine, signal);
    task.onStep("Checking the installation");
    await task.run(task.python, ["-c", "import c2l_lsp"], task.onLine, signal);
  } catch (error) {
    await task.remove(task.folder).catch(() => undefined);
    signal.throwIfAborted();
    const why = error instanceof Error ? error.message : String(error);
    throw new SetUpError(`The Python environment could not be set up: ${why}`);
  }
}

async function firstUsable(task: SetUpTask, signal: AbortSignal): Promise<string> {
  for (const base of task.basePythons) {
    try {
      await task.run(base, ["-c", VERSION_CHECK], task.onLine, signal);
      return base;
    } catch {
      signal.throwIfAborted();
    }
  }
  throw new SetUpError("No Python 3.10 or newer was found. Install one, or name it in c2l.server.interpreter.");
}
