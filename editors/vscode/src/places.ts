/** The places of a follow-up edit, as the server's code action lists them. Uses no VS Code API. */

interface Position {
  line: number;
  character: number;
}

export interface PlaceEdit {
  range: { start: Position; end: Position };
  newText: string;
}

/** The part of the server's code action that is used here. */
export interface Action {
  edit?: { documentChanges?: { textDocument: { uri: string; version?: number | null }; edits: PlaceEdit[] }[] };
}

/** Returns the replacement on a line of a document that is nearest to the cursor. */
export function nearest(actions: readonly Action[], uri: string, version: number, cursor: Position): PlaceEdit | undefined {
  const changes = actions.flatMap((action) => action.edit?.documentChanges ?? []);
  const own = changes.filter(({ textDocument }) => textDocument.uri === uri && textDocument.version === version);
  const distance = ({ range }: PlaceEdit): number =>
    Math.max(range.start.character - cursor.character, cursor.character - range.end.character);
  return own
    .flatMap(({ edits }) => edits)
    .filter(({ range, newText }) => range.start.line === cursor.line && newText !== "")
    .sort((one, other) => distance(one) - distance(other))[0];
}
