import assert from "node:assert/strict";
import { test } from "node:test";
import { enabledFor, explicit, type Inspected, isMachine, keysOf, machine, needsRestart, type Source } from "../src/settings";

function source(values: Record<string, Inspected & { defaultValue?: unknown }>): Source {
  return {
    inspect: (key) => values[key],
    get: (key) => {
      const found = values[key];
      return found?.workspaceFolderValue ?? found?.workspaceValue ?? found?.globalValue ?? found?.defaultValue;
    },
  };
}

test("defaults stay out, so that the user's own file counts", () => {
  const given = source({ "completion.debounceMs": { defaultValue: 75 }, enable: { globalValue: { "*": false } } });
  assert.deepEqual(explicit(given, ["completion.debounceMs", "enable"]), { enable: { "*": false } });
});

test("set values are nested and the nearest scope wins", () => {
  const given = source({ "adapter.scale": { globalValue: 1, workspaceFolderValue: 2 }, "adapter.enable": { workspaceValue: false } });
  assert.deepEqual(explicit(given, ["adapter.scale", "adapter.enable"]), { adapter: { scale: 2, enable: false } });
});

test("a workspace cannot reach the machine's settings by any way", () => {
  const given = source({ "server.path": { workspaceValue: "/evil" }, "model.device": { globalValue: "cpu" } });
  assert.deepEqual(explicit(given, ["server.path", "model.device"]), {});
  assert.deepEqual(machine(given, ["server.path", "model.device", "adapter.scale"]), { model: { device: "cpu" } });
});

test("only what the server reads once needs a fresh one", () => {
  assert.equal(needsRestart((section) => section === "c2l.model"), true);
  assert.equal(needsRestart((section) => section === "c2l.trace.server"), true);
  assert.equal(needsRestart((section) => section === "c2l.completion"), false);
  assert.equal(isMachine("modelling.x"), false);
});

test("a language is looked up before the star, and on without either", () => {
  assert.equal(enabledFor({ "*": true, plaintext: false }, "plaintext"), false);
  assert.equal(enabledFor({ "*": false }, "python"), false);
  assert.equal(enabledFor({}, "python"), true);
});

test("keys come from every section of the manifest", () => {
  const manifest = { contributes: { configuration: [{ properties: { "c2l.a.b": {} } }, { properties: { "c2l.c": {} } }] } };
  assert.deepEqual(keysOf(manifest), ["a.b", "c"]);
  assert.deepEqual(keysOf({}), []);
});
