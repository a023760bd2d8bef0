// Controls a headless Chromium for the tests: one JSON command per line on stdin, one JSON answer per line on stdout.
// Only loopback addresses resolve. (Playwright's request routing would also do this, but it disables the HTTP cache.)
const { chromium } = require(`${process.env.C2L_VSCODE}/node_modules/playwright-core`);
const readline = require("node:readline");

const ARGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
  "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
];
let page;
let ended;

/** Returns the frame that contains a selector; webviews are nested frames. */
async function frameWith(selector, timeout) {
  const until = Date.now() + timeout;
  for (;;) {
    for (const frame of page.frames()) {
      const found = await frame.locator(selector).count().catch(() => 0);
      if (found > 0) return frame;
    }
    if (Date.now() > until) throw new Error(`No frame contains ${selector}`);
    await page.waitForTimeout(200);
  }
}

const commands = {
  async open({ url, timeout }) {
    await page.goto(url, { waitUntil: "domcontentloaded", timeout });
  },
  /** Open a page whose extension host runs tests, and return their exit code. */
  async runTests({ url, timeout }) {
    if (ended === undefined) {
      await page.exposeFunction("codeAutomationExit", (code) => ended(code));
      await page.exposeFunction("codeAutomationLog", () => undefined);
    }
    const code = new Promise((resolve, reject) => {
      const onTimeout = () => reject(new Error(`The extension host tests did not end within ${timeout} ms`));
      const timer = setTimeout(onTimeout, timeout);
      ended = (number) => {
        clearTimeout(timer);
        resolve(number);
      };
    });
    await page.goto(url, { waitUntil: "domcontentloaded", timeout });
    return code;
  },
  async wait({ selector, timeout, state }) {
    await page.locator(selector).first().waitFor({ timeout, state: state ?? "visible" });
  },
  texts: ({ selector }) => page.locator(selector).allTextContents(),
  /** The texts that style sheets add behind elements. */
  added: ({ selector }) => page.locator(selector).evaluateAll((found) =>
    found.map((one) => getComputedStyle(one, "::after").content).filter((text) => text !== "none")),
  attribute: ({ selector, name }) => page.locator(selector).first().getAttribute(name, { timeout: 5000 }),
  click: ({ selector, timeout }) => page.locator(selector).first().click({ timeout: timeout ?? 20000 }),
  hover: ({ selector }) => page.locator(selector).first().hover({ timeout: 20000 }),
  type: ({ text, delay }) => page.keyboard.type(text, { delay: delay ?? 40 }),
  /** Insert the text at once, as if pasted, so that a filtered list is filtered once. */
  insert: ({ text }) => page.keyboard.insertText(text),
  press: ({ key }) => page.keyboard.press(key),
  screenshot: ({ path, clip }) => page.screenshot({ path, clip }).then(() => path),
  async frameTexts({ selector, timeout }) {
    return (await frameWith(selector, timeout)).locator(selector).allInnerTexts();
  },
  async frameClick({ selector, timeout }) {
    await (await frameWith(selector, timeout)).locator(selector).first().click({ timeout });
  },
  async frameEvaluate({ selector, code, timeout }) {
    return (await frameWith(selector, timeout)).evaluate(code);
  },
};

async function main() {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ARGS });
  const context = await browser.newContext({ viewport: { width: 1200, height: 760 } });
  page = await context.newPage();
  page.on("console", (message) => {
    if (message.type() === "error") console.error(message.text().slice(0, 500));
  });
  console.log(JSON.stringify({ ok: true }));
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { command, ...rest } = JSON.parse(line);
    try {
      console.log(JSON.stringify({ ok: true, value: (await commands[command](rest)) ?? null }));
    } catch (error) {
      console.log(JSON.stringify({ ok: false, error: String(error.message).slice(0, 1000) }));
    }
  }
  await browser.close();
}

main();
