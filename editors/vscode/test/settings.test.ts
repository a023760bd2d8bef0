import assert from "node:assert/strict";
import { test } from "node:test";
import { enabledFor, explicit, type Inspected, isMachine, keysOf, type Source, users } from "../src/settings";

function source(values: Record<string, Inspected & { defaultValue?: unknown }>): Source {
  return {
    inspect: (key) => values[key],
    get: (key) => {
      const found = values[key];
      return found?.workspaceFolderValue ?? found?.workspaceValue ?? found?.globalValue ?? found?.defaultValue;
    },
  };
}

test("explicit leaves out defaults, which would override the user's configuration file", () => {
  const given = source({ "completion.debounceMs": { defaultValue: 75 }, enable: { globalValue: { "*": false } } });
  assert.deepEqual(explicit(given, ["completion.debounceMs", "enable"]), { enable: { "*": false } });
});

test("explicit nests values by group, and the narrowest scope wins", () => {
  const given = source({ "adapter.scale": { globalValue: 1, workspaceFolderValue: 2 }, "adapter.enable": { workspaceValue: false } });
  assert.deepEqual(explicit(given, ["adapter.scale", "adapter.enable"]), { adapter: { scale: 2, enable: false } });
});

test("workspace values of machine settings are never sent", () => {
  const given = source({ "server.path": { workspaceValue: "/evil" }, "model.device": { globalValue: "cpu" } });
  assert.deepEqual(explicit(given, ["server.path", "model.device"]), {});
  assert.deepEqual(users(given, ["server.path", "model.device", "adapter.scale"]), { model: { device: "cpu" } });
});

test("limits on readable files are sent separately for user and workspace", () => {
  const given = source({
    "files.maxSizeKb": { globalValue: 900, workspaceValue: 9 },
    "files.exclude": { globalValue: ["a/"] },
  });
  const keys = ["files.maxSizeKb", "files.exclude"];
  assert.deepEqual(users(given, keys), { files: { maxSizeKb: 900, exclude: ["a/"] } });
  assert.deepEqual(explicit(given, keys), { files: { maxSizeKb: 9 } });
  assert.equal(isMachine("modelling.x"), false);
});

test("enabledFor prefers the language over *, and defaults to on", () => {
  assert.equal(enabledFor({ "*": true, plaintext: false }, "plaintext"), false);
  assert.equal(enabledFor({ "*": false }, "python"), false);
  assert.equal(enabledFor({}, "python"), true);
});

test("keysOf collects the keys of every section of the manifest", () => {
  const manifest = { contributes: { configuration: [{ properties: { "c2l.a.b": {} } }, { properties: { "c2l.c": {} } }] } };
  assert.deepEqual(keysOf(manifest), ["a.b", "c"]);
  assert.deepEqual(keysOf({}), []);
});
