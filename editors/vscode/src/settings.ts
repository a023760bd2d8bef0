/** Selects the VS Code settings that are sent to the server, by scope. Does not use `vscode`. */

/** Groups that only the user may set, because they name paths, addresses, commands and devices, or log texts. */
export const MACHINE_GROUPS = ["model", "server", "remote", "trace"] as const;

/** Settings that limit what is read and stored. A workspace may only make them stricter, so its value is sent apart. */
export const TIGHTENED = [
  "adapter.enable", "adapter.hypernetwork", "adapter.includeUnsaved", "adapter.useGitHistory", "adapter.historyCommits",
  "adapter.maxIndexKb", "followUp.enable", "files.exclude", "files.respectGitignore", "files.ignoreFile", "files.maxSizeKb",
  "files.languages", "statistics.enable",
];

/** The part of the result of `WorkspaceConfiguration.inspect` that is used here. */
export interface Inspected {
  globalValue?: unknown;
  workspaceValue?: unknown;
  workspaceFolderValue?: unknown;
}

/** The settings of one resource; keys without the leading "c2l.". */
export interface Source {
  inspect(key: string): Inspected | undefined;
  get(key: string): unknown;
}

export type Tree = Record<string, unknown>;

export function isMachine(key: string): boolean {
  return MACHINE_GROUPS.some((group) => key.startsWith(`${group}.`));
}

/**
 * Returns the settings that were set explicitly, nested by group. Defaults are left out: they would override the user's
 * configuration file, which the server reads first.
 */
export function explicit(source: Source, keys: readonly string[]): Tree {
  const tree: Tree = {};
  for (const key of keys) {
    if (isMachine(key)) continue;
    const found = source.inspect(key);
    const values = [found?.workspaceValue, found?.workspaceFolderValue];
    if (!TIGHTENED.includes(key)) values.push(found?.globalValue);
    if (values.some((value) => value !== undefined)) put(tree, key, source.get(key));
  }
  return tree;
}

/**
 * Returns the settings that only the user may set, nested by group: machine settings, and the limits on what is read and
 * stored. Workspace values are ignored. The server reads these once, when it starts.
 */
export function users(source: Source, keys: readonly string[]): Tree {
  const tree: Tree = {};
  for (const key of keys) {
    const value = isMachine(key) || TIGHTENED.includes(key) ? source.inspect(key)?.globalValue : undefined;
    if (value !== undefined) put(tree, key, value);
  }
  return tree;
}

/** Returns whether completions are on for a language, by the value of `c2l.enable`. */
export function enabledFor(map: Record<string, boolean>, language: string): boolean {
  return map[language] ?? map["*"] ?? true;
}

/** Returns the keys of `contributes.configuration`, without the leading "c2l.". */
export function keysOf(manifest: unknown): string[] {
  const sections = (manifest as { contributes?: { configuration?: { properties: Tree }[] } }).contributes?.configuration;
  return (sections ?? []).flatMap((section) => Object.keys(section.properties)).map((key) => key.replace(/^c2l\./, ""));
}

function put(tree: Tree, dotted: string, value: unknown): void {
  const parts = dotted.split(".");
  const last = parts.pop() ?? dotted;
  let at = tree;
  for (const part of parts) at = (at[part] ??= {}) as Tree;
  at[last] = value;
}
