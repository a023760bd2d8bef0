/** The interpreter that is selected in the Python extension. That extension is optional. */

import { extensions, type Uri } from "vscode";

/** As much of the Python extension's API as is used here. */
interface PythonApi {
  environments?: {
    getActiveEnvironmentPath(resource?: Uri): { path: string };
    resolveEnvironment(path: { path: string }): Promise<{ executable: { uri?: Uri } } | undefined>;
    onDidChangeActiveEnvironmentPath(listener: () => void): { dispose(): void };
  };
}

async function api(): Promise<PythonApi | undefined> {
  const extension = extensions.getExtension<PythonApi>("ms-python.python");
  if (extension === undefined) return undefined;
  return extension.isActive ? extension.exports : await extension.activate();
}

export async function activePython(resource: Uri | undefined): Promise<string | undefined> {
  try {
    const environments = (await api())?.environments;
    if (environments === undefined) return undefined;
    const found = await environments.resolveEnvironment(environments.getActiveEnvironmentPath(resource));
    return found?.executable.uri?.fsPath;
  } catch {
    return undefined; // that extension's trouble is not ours; the next place is tried
  }
}

/** Call back when the selection changes. Does nothing without the Python extension. */
export async function onPythonChanged(listener: () => void): Promise<{ dispose(): void }> {
  try {
    return (await api())?.environments?.onDidChangeActiveEnvironmentPath(listener) ?? { dispose: () => undefined };
  } catch {
    return { dispose: () => undefined };
  }
}
