// Runs inside the real extension host, with the whole `vscode` API: `run` is what VS Code calls.
// WORK/control/wanted holds the completion that must come behind `word`; empty: any.
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
    if (Date.now() > end) throw new Error(`Waited in vain for ${what}`);
    await sleep(200);
  }
}

/** A new file with this text, the cursor at its end. */
async function open(name, text) {
  const uri = vscode.Uri.joinPath(folder(), name);
  fs.writeFileSync(uri.fsPath, text);
  const document = await vscode.workspace.openTextDocument(uri);
  const editor = await vscode.window.showTextDocument(document);
  const end = document.lineAt(document.lineCount - 1).range.end;
  editor.selection = new vscode.Selection(end, end);
  return document;
}

/** Ask, and take what comes with a command, until the text has changed. */
async function take(document, command) {
  const before = document.getText();
  let wait = 300;
  await until(`a completion to take with ${command}`, async () => {
    await vscode.commands.executeCommand("c2l.triggerCompletion");
    await sleep(wait);
    // To ask again ends the question before: one that takes longer than this wait would never be answered.
    wait = Math.min(2 * wait, 5000);
    await vscode.commands.executeCommand(command);
    return document.getText() !== before;
  });
  return document.getText().slice(before.length);
}

/** As under the first generation: the files written here make others. */
const first = (text) => text.replace(/_g\d+/, "_g1");

async function contributes() {
  const extension = vscode.extensions.getExtension("c2l.c2l-lsp");
  assert.ok(extension, "the extension is not there");
  await extension.activate();
  const known = await vscode.commands.getCommands(true);
  for (const { command } of extension.packageJSON.contributes.commands) assert.ok(known.includes(command), command);
}

async function accepts() {
  const wanted = read("wanted");
  const document = await open("inside.py", "# demo\nword");
  const taken = first(await take(document, "editor.action.inlineSuggest.commit"));
  if (wanted !== "") assert.strictEqual(taken, wanted);
  await document.save();
  assert.strictEqual(fs.readFileSync(document.uri.fsPath, "utf8"), document.getText());
  const again = await open("part.py", "# demo\nword");
  const part = first(await take(again, "editor.action.inlineSuggest.acceptNextWord"));
  assert.ok(part.length > 0 && (wanted === "" || (wanted.startsWith(part) && part !== wanted)), `a word, not ${part}`);
}

/** What is asked in vain at a place can be had there as soon as it may: VS Code itself would not ask a second time. */
async function asksAgain() {
  const document = await open("again.py", "# demo\nword");
  const uri = document.uri.toString();
  await vscode.commands.executeCommand("c2l.toggle", { uri, enabled: false });
  await vscode.commands.executeCommand("c2l.triggerCompletion");
  await sleep(500);
  await vscode.commands.executeCommand("c2l.toggle", { uri, enabled: true });
  await take(document, "editor.action.inlineSuggest.commit");
}

/** The next line of several; and of several candidates the second one. The real model may have only one of each. */
async function takesParts() {
  const fake = read("wanted") !== "";
  const lines = await open("lines.py", "# LINES\nword");
  const line = await take(lines, "editor.action.inlineSuggest.acceptNextLine");
  if (fake) assert.strictEqual(line.trimEnd(), "word_one");
  assert.ok(line.length > 0 && line.trimEnd().indexOf("\n", 1) < 0, `a line, not ${line}`);
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

async function switches() {
  const document = await open("off.py", "# demo\nword");
  await vscode.commands.executeCommand("c2l.toggle", { enabled: false });
  for (let times = 0; times < 3; times += 1) {
    await vscode.commands.executeCommand("c2l.triggerCompletion");
    await sleep(400);
    await vscode.commands.executeCommand("editor.action.inlineSuggest.commit");
  }
  assert.strictEqual(document.getText(), "# demo\nword", "off shows nothing");
  await vscode.commands.executeCommand("c2l.toggle", { enabled: true });
  await take(document, "editor.action.inlineSuggest.commit");
}

async function configures() {
  const settings = vscode.workspace.getConfiguration("c2l");
  await settings.update("enable", { python: false }, vscode.ConfigurationTarget.Workspace);
  const document = await open("language.py", "# demo\nword");
  await sleep(1500);
  await vscode.commands.executeCommand("c2l.triggerCompletion");
  await sleep(1500);
  await vscode.commands.executeCommand("editor.action.inlineSuggest.commit");
  assert.strictEqual(document.getText(), "# demo\nword", "off for the language");
  await settings.update("enable", undefined, vscode.ConfigurationTarget.Workspace);
  await take(document, "editor.action.inlineSuggest.commit");
}

exports.run = async () => {
  const log = [];
  try {
    for (const one of [contributes, accepts, asksAgain, takesParts, switches, configures]) {
      await one();
      log.push(`HELD ${one.name}`);
    }
  } catch (error) {
    log.push(`FAILED ${error.stack}`);
    throw error;
  } finally {
    fs.writeFileSync(control("inside.log"), log.join("\n"));
  }
};
