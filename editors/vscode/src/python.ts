/** The interpreter that is selected in the Python extension, which may not be installed. */

import { extensions, type Uri } from "vscode";

/** The part of the Python extension's API that is used here. */
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

/** Returns the path of the selected interpreter, or undefined without the Python extension or if it fails. */
export async function activePython(resource: Uri | undefined): Promise<string | undefined> {
  try {
    const environments = (await api())?.environments;
    if (environments === undefined) return undefined;
    const found = await environments.resolveEnvironment(environments.getActiveEnvironmentPath(resource));
    return found?.executable.uri?.fsPath;
  } catch {
    return undefined; // the Python extension failed; the next source is tried
  }
}

/** Call `listener` when the selection changes. Does nothing without the Python extension. */
export async function onPythonChanged(listener: () => void): Promise<{ dispose(): void }> {
  try {
    return (await api())?.environments?.onDidChangeActiveEnvironmentPath(listener) ?? { dispose: () => undefined };
  } catch {
    return { dispose: () => undefined };
  }
}
