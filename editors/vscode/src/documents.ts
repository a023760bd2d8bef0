/** The documents that the server takes: files, new files, and the cells of notebooks. */

import type { TextDocument } from "vscode";

export const SELECTOR = [{ scheme: "file" }, { scheme: "untitled" }, { scheme: "vscode-notebook-cell" }];

export function isServed(document: TextDocument): boolean {
  return SELECTOR.some(({ scheme }) => scheme === document.uri.scheme);
}
