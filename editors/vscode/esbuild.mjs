// Bundles the extension and its webview script into dist/, or with --test the unit tests into build/test/.
import { readdirSync, rmSync } from "node:fs";
import { build } from "esbuild";

const common = {
  bundle: true,
  logLevel: "warning",
  loader: { ".css": "text" },
  legalComments: "none",
};

if (process.argv.includes("--test")) {
  rmSync("build/test", { recursive: true, force: true });
  await build({
    ...common,
    entryPoints: readdirSync("test").filter((name) => name.endsWith(".test.ts")).map((name) => `test/${name}`),
    outdir: "build/test",
    outExtension: { ".js": ".mjs" },
    platform: "node",
    format: "esm",
    sourcemap: "inline",
  });
} else {
  rmSync("dist", { recursive: true, force: true });
  const release = { ...common, minify: true, sourcemap: false };
  await build({
    ...release,
    entryPoints: ["src/extension.ts", "src/client.ts"],
    outdir: "dist",
    platform: "node",
    format: "cjs",
    target: "node20",
    supported: { "dynamic-import": false }, // emitted as a deferred require, which VS Code's module loader supports
    external: ["vscode", "./client"],
  });
  await build({
    ...release,
    entryPoints: ["src/webview/panel.ts"],
    outfile: "dist/panel.js",
    platform: "browser",
    format: "iife",
    target: "es2022",
  });
}
