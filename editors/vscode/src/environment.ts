/** Sets up a Python environment with the server in it. Visible and cancellable; what was begun is removed if it fails. */

/** Runs a program to its end, line by line. Rejects if it fails or `signal` aborts it. */
export type Run = (
  command: string,
  args: readonly string[],
  onLine: (line: string) => void,
  signal: AbortSignal,
) => Promise<void>;

export interface Work {
  /** Pythons to try as the base, best first. */
  bases: readonly string[];
  /** Where to put the environment, and its Python. */
  folder: string;
  python: string;
  /** What pip installs. */
  requirement: string;
  run: Run;
  remove: (folder: string) => Promise<void>;
  onLine: (line: string) => void;
  onStep: (step: string) => void;
}

export class SetUpError extends Error {}

const USABLE = "import sys; sys.exit(sys.version_info < (3, 10))";

/** Make the environment. Throws SetUpError with a sentence for the user, or the signal's own error when cancelled. */
export async function setUp(work: Work, signal: AbortSignal): Promise<void> {
  work.onStep("Looking for Python 3.10 or newer");
  const base = await firstUsable(work, signal);
  try {
    work.onStep("Creating the environment");
    await work.run(base, ["-m", "venv", "--clear", work.folder], work.onLine, signal);
    work.onStep(`Installing ${work.requirement}`);
    const pip = ["-m", "pip", "install", "--disable-pip-version-check", "--no-input", work.requirement];
    await work.run(work.python, pip, work.onLine, signal);
    work.onStep("Checking it");
    await work.run(work.python, ["-c", "import c2l_lsp"], work.onLine, signal);
  } catch (error) {
    await work.remove(work.folder).catch(() => undefined);
    signal.throwIfAborted();
    const why = error instanceof Error ? error.message : String(error);
    throw new SetUpError(`The Python environment could not be set up: ${why}`);
  }
}

async function firstUsable(work: Work, signal: AbortSignal): Promise<string> {
  for (const base of work.bases) {
    try {
      await work.run(base, ["-c", USABLE], work.onLine, signal);
      return base;
    } catch {
      signal.throwIfAborted();
    }
  }
  throw new SetUpError("No Python 3.10 or newer was found. Install one, or name it in c2l.server.interpreter.");
}
