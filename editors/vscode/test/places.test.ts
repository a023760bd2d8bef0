import assert from "node:assert/strict";
import { test } from "node:test";
import { type Action, nearest, type PlaceEdit } from "../src/places";

const URI = "file:///shop/shop.py";

function place(line: number, start: number, end: number, newText = "price"): PlaceEdit {
  return { range: { start: { line, character: start }, end: { line, character: end } }, newText };
}

function action(edits: PlaceEdit[], uri = URI, version: number | null = 3): Action {
  return { edit: { documentChanges: [{ textDocument: { uri, version }, edits }] } };
}

test("of two places on the cursor's line, the nearer one is shown", () => {
  const actions = [action([place(4, 2, 7), place(4, 20, 25), place(5, 11, 16)])];
  assert.deepEqual(nearest(actions, URI, 3, { line: 4, character: 12 }), place(4, 2, 7));
  assert.deepEqual(nearest(actions, URI, 3, { line: 4, character: 22 }), place(4, 20, 25));
  assert.equal(nearest(actions, URI, 3, { line: 6, character: 0 }), undefined);
});

test("places of other files, of another version, and removals are not shown", () => {
  const cursor = { line: 4, character: 0 };
  assert.equal(nearest([action([place(4, 2, 7)], "file:///shop/other.py")], URI, 3, cursor), undefined);
  assert.equal(nearest([action([place(4, 2, 7)], URI, 2)], URI, 3, cursor), undefined);
  assert.equal(nearest([action([place(4, 2, 7, "")])], URI, 3, cursor), undefined);
  assert.equal(nearest([{}], URI, 3, cursor), undefined);
});
