// Runs in the extension host with the full `vscode` API; VS Code calls `run`.
// WORK/control/expected contains the completion expected after `word`; empty: any completion.
const assert = require("node:assert");
const fs = require("node:fs");
const path = require("node:path");
const vscode = require("vscode");

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const folder = () => vscode.workspace.workspaceFolders[0].uri;
const control = (name) => path.join(path.dirname(folder().fsPath), "control", name);
const read = (name) => (fs.existsSync(control(name)) ? fs.readFileSync(control(name), "utf8").trim() : "");
const patience = 1000 * Number(read("patience") || "60");

async function until(what, seen) {
  const end = Date.now() + patience;
  for (;;) {
    const value = await seen();
    if (value) return value;
    if (Date.now() > end) throw new Error(`Timed out waiting for ${what}`);
    await sleep(200);
  }
}

/** Create a file with this text and open it with the cursor at its end. */
async function open(name, text) {
  const uri = vscode.Uri.joinPath(folder(), name);
  fs.writeFileSync(uri.fsPath, text);
  const document = await vscode.workspace.openTextDocument(uri);
  const editor = await vscode.window.showTextDocument(document);
  const end = document.lineAt(document.lineCount - 1).range.end;
  editor.selection = new vscode.Selection(end, end);
  return document;
}

/** Trigger completions and run an accept command until the text changes; return the inserted text. */
async function accept(document, command) {
  const before = document.getText();
  let wait = 300;
  await until(`a completion to accept with ${command}`, async () => {
    await vscode.commands.executeCommand("c2l.triggerCompletion");
    await sleep(wait);
    // A new request cancels the previous one, so the wait grows to let a slow one finish.
    wait = Math.min(2 * wait, 5000);
    await vscode.commands.executeCommand(command);
    return document.getText() !== before;
  });
  return document.getText().slice(before.length);
}

/** Replace the generation number by 1: files that these tests write publish new generations. */
const asFirstGeneration = (text) => text.replace(/_g\d+/, "_g1");

async function registersAllCommands() {
  const extension = vscode.extensions.getExtension("c2l.c2l-lsp");
  assert.ok(extension, "the extension is not installed");
  await extension.activate();
  const known = await vscode.commands.getCommands(true);
  for (const { command } of extension.packageJSON.contributes.commands) assert.ok(known.includes(command), command);
}

async function acceptsWholeAndWord() {
  const expected = read("expected");
  const document = await open("whole.py", "# demo\nword");
  const taken = asFirstGeneration(await accept(document, "editor.action.inlineSuggest.commit"));
  if (expected !== "") assert.strictEqual(taken, expected);
  await document.save();
  assert.strictEqual(fs.readFileSync(document.uri.fsPath, "utf8"), document.getText());
  const again = await open("part.py", "# demo\nword");
  const part = asFirstGeneration(await accept(again, "editor.action.inlineSuggest.acceptNextWord"));
  assert.ok(part.length > 0 && (expected === "" || (expected.startsWith(part) && part !== expected)), `expected a word: ${part}`);
}

/** After an empty result, a later request at the same position works, although VS Code caches the empty result. */
async function requestsAgainAfterEmptyResult() {
  const document = await open("again.py", "# demo\nword");
  const uri = document.uri.toString();
  await vscode.commands.executeCommand("c2l.toggle", { uri, enabled: false });
  await vscode.commands.executeCommand("c2l.triggerCompletion");
  await sleep(500);
  await vscode.commands.executeCommand("c2l.toggle", { uri, enabled: true });
  await accept(document, "editor.action.inlineSuggest.commit");
}

/** Accepts the next line of a multi-line completion and the second candidate. The real model may offer only one. */
async function acceptsLineAndSecondCandidate() {
  const fake = read("expected") !== "";
  const lines = await open("lines.py", "# LINES\nword");
  const line = await accept(lines, "editor.action.inlineSuggest.acceptNextLine");
  if (fake) assert.strictEqual(line.trimEnd(), "word_one");
  assert.ok(line.length > 0 && line.trimEnd().indexOf("\n", 1) < 0, `expected a line: ${line}`);
  if (!fake) return;
  const others = await open("cycle.py", "# demo\nword");
  await until("the second candidate", async () => {
    await vscode.commands.executeCommand("c2l.triggerCompletion");
    await sleep(500);
    await vscode.commands.executeCommand("editor.action.inlineSuggest.showNext");
    await sleep(500);
    await vscode.commands.executeCommand("editor.action.inlineSuggest.commit");
    return others.getText() !== "# demo\nword";
  });
  assert.match(others.getText(), /_word_g\d+_1\(\)$/);
}

async function toggleTurnsCompletionsOff() {
  const document = await open("off.py", "# demo\nword");
  await vscode.commands.executeCommand("c2l.toggle", { enabled: false });
  for (let times = 0; times < 3; times += 1) {
    await vscode.commands.executeCommand("c2l.triggerCompletion");
    await sleep(400);
    await vscode.commands.executeCommand("editor.action.inlineSuggest.commit");
  }
  assert.strictEqual(document.getText(), "# demo\nword", "no completion while off");
  await vscode.commands.executeCommand("c2l.toggle", { enabled: true });
  await accept(document, "editor.action.inlineSuggest.commit");
}

async function languageSettingTurnsCompletionsOff() {
  const settings = vscode.workspace.getConfiguration("c2l");
  await settings.update("enable", { python: false }, vscode.ConfigurationTarget.Workspace);
  const document = await open("language.py", "# demo\nword");
  await sleep(1500);
  await vscode.commands.executeCommand("c2l.triggerCompletion");
  await sleep(1500);
  await vscode.commands.executeCommand("editor.action.inlineSuggest.commit");
  assert.strictEqual(document.getText(), "# demo\nword", "no completion while the language is off");
  await settings.update("enable", undefined, vscode.ConfigurationTarget.Workspace);
  await accept(document, "editor.action.inlineSuggest.commit");
}

exports.run = async () => {
  const log = [];
  try {
    for (const one of [
      registersAllCommands, acceptsWholeAndWord, requestsAgainAfterEmptyResult, acceptsLineAndSecondCandidate,
      toggleTurnsCompletionsOff, languageSettingTurnsCompletionsOff,
    ]) {
      await one();
      log.push(`PASSED ${one.name}`);
    }
  } catch (error) {
    log.push(`FAILED ${error.stack}`);
    throw error;
  } finally {
    fs.writeFileSync(control("extension-host.log"), log.join("\n"));
  }
};
