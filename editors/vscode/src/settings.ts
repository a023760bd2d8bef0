/** What goes to the server out of VS Code's settings, and which changes need a fresh server. Knows no `vscode`. */

/** Groups only the user may set: they name paths, addresses, commands and devices. */
export const MACHINE_GROUPS = ["model", "server", "remote"] as const;

/** Settings of what may be read: the user's own value goes another way than a workspace's, which may only tighten it. */
export const TIGHTENED = [
  "files.exclude", "files.respectGitignore", "files.ignoreFile", "files.maxSizeKb", "adapter.maxIndexKb",
];

/** As `WorkspaceConfiguration.inspect` answers. */
export interface Inspected {
  globalValue?: unknown;
  workspaceValue?: unknown;
  workspaceFolderValue?: unknown;
}

/** One resource's view of the settings; keys without the leading "c2l.". */
export interface Source {
  inspect(key: string): Inspected | undefined;
  get(key: string): unknown;
}

export type Tree = Record<string, unknown>;

export function isMachine(key: string): boolean {
  return MACHINE_GROUPS.some((group) => key.startsWith(`${group}.`));
}

/**
 * The settings that were set by someone, nested. Defaults stay out: they would cover the user's own configuration file,
 * which the server reads first.
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
 * What only the user may say, nested: machine settings, and what may be read at all. A workspace's values are not even
 * looked at. The server reads these once, when it starts.
 */
export function users(source: Source, keys: readonly string[]): Tree {
  const tree: Tree = {};
  for (const key of keys) {
    const value = isMachine(key) || TIGHTENED.includes(key) ? source.inspect(key)?.globalValue : undefined;
    if (value !== undefined) put(tree, key, value);
  }
  return tree;
}

/** On or off for a language, by the map of `c2l.enable`. */
export function enabledFor(map: Record<string, boolean>, language: string): boolean {
  return map[language] ?? map["*"] ?? true;
}

/** The keys of `contributes.configuration`, without the leading "c2l.". */
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
