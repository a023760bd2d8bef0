/** Renders the panel's data. All text is inserted as text nodes, so that none of it can become markup. */

import { COMPARISON_HEAD, GENERATION_HEAD, type PanelData, REASON_HEAD, type Row } from "../panelModel";

declare function acquireVsCodeApi(): { postMessage(message: unknown): void };

const editor = acquireVsCodeApi();
const main = document.querySelector("main") ?? document.body;

window.addEventListener("message", (event: MessageEvent<PanelData>) => {
  const focused = document.activeElement?.id;
  const scroll = window.scrollY;
  main.replaceChildren(...draw(event.data));
  if (focused) document.getElementById(focused)?.focus();
  window.scrollTo(0, scroll);
});
editor.postMessage({ kind: "ready" });

function draw(data: PanelData): Node[] {
  return [
    element("h1", {}, "Adapter Report"),
    element("p", { class: "sentence", role: "status" }, data.busy ? `${data.sentence} …` : data.sentence),
    controls(data),
    element("h2", {}, "Current adapter"),
    definitions(data.facts),
    element("h2", {}, "History"),
    ...generations(data),
    element("h2", {}, "Completions with and without adapter"),
    ...comparison(data),
    ...(data.resources.length > 0 ? [element("h2", {}, "Disk and memory"), definitions(data.resources)] : []),
    ...(data.reasons.length > 0
      ? [element("h2", {}, "Requests without a completion"), table("", REASON_HEAD, data.reasons)]
      : []),
  ];
}

function controls(data: PanelData): Node {
  const select = element("select", { id: "folder", "aria-label": "Folder" }) as HTMLSelectElement;
  for (const { path, name } of data.folders) {
    const option = element("option", { value: path, title: path }, name) as HTMLOptionElement;
    option.selected = path === data.folder;
    select.append(option);
  }
  select.addEventListener("change", () => {
    editor.postMessage({ kind: "folder", folder: select.value });
  });
  return element(
    "div",
    { class: "row", role: "toolbar", "aria-label": "Adapter" },
    ...(data.folders.length > 1 ? [select] : []),
    button("regenerate", "Rebuild", data.folder !== ""),
    button("deepen", data.training ? "Stop fine-tuning" : "Fine-tune", data.hasAdapter),
    button("toggle", data.adapterOn ? "Turn adapter off" : "Turn adapter on", data.folder !== ""),
    button("export", "Export…", data.hasAdapter),
    button("reset", "Delete…", data.folder !== ""),
  );
}

function button(action: string, label: string, enabled: boolean): Node {
  const node = element("button", { id: action, type: "button" }, label) as HTMLButtonElement;
  node.disabled = !enabled;
  node.addEventListener("click", () => {
    editor.postMessage({ kind: "action", action });
  });
  return node;
}

function generations(data: PanelData): Node[] {
  if (data.generations.length === 0) return [element("p", {}, "There is no adapter yet.")];
  const rows = element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Generations" });
  rows.append(table("text", GENERATION_HEAD, data.generations));
  if (data.points.length < 2) return [rows];
  return [element("p", { class: "sentence" }, "Norm of the adapter by generation"), chart(data.points), rows];
}

function comparison(data: PanelData): Node[] {
  if (data.comparison.length === 0) return [element("p", {}, "No completions have been counted yet.")];
  return [table("", COMPARISON_HEAD, data.comparison), element("p", { class: "sentence" }, data.week)];
}

function definitions(rows: [string, string][]): Node {
  const list = element("dl", { class: "facts" });
  for (const [name, value] of rows) {
    list.append(element("div", {}, element("dt", {}, name), element("dd", {}, value)));
  }
  return list;
}

function table(kind: string, head: Row, rows: Row[]): Node {
  const cells = (row: Row): Node[] =>
    row.map((text, index) => element(index === 0 ? "th" : "td", index === 0 ? { scope: "row" } : {}, text));
  return element(
    "table",
    { class: kind },
    element("thead", {}, element("tr", {}, ...head.map((text) => element("th", { scope: "col" }, text)))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...cells(row)))),
  );
}

function chart(points: PanelData["points"]): Node {
  const [width, height, left, bottom] = [600, 110, 44, 20];
  const norms = points.map(({ norm }) => norm);
  const [low, high] = [Math.min(...norms), Math.max(...norms)];
  const x = (index: number): number => left + (index * (width - left - 12)) / (points.length - 1);
  const share = (norm: number): number => (high > low ? (high - norm) / (high - low) : 0.5);
  const y = (norm: number): number => 12 + (height - bottom - 24) * share(norm);
  const [first, last] = [points[0]?.generation ?? 0, points.at(-1)?.generation ?? 0];
  const label = `Norm of the adapter from generation ${first} to ${last}, between ${short(low)} and ${short(high)}`;
  const box = { preserveAspectRatio: "xMinYMid", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label };
  const line = points.map(({ norm }, index) => `${x(index)},${y(norm)}`).join(" ");
  return svgElement(
    "svg",
    box,
    svgElement("line", { class: "axis", x1: left, x2: width, y1: height - bottom, y2: height - bottom }),
    svgElement("polyline", { class: "line", points: line }),
    ...points.map(({ norm }, index) => svgElement("circle", { cx: x(index), cy: y(norm), r: 3 })),
    svgElement("text", { x: 0, y: y(high) + 4 }, short(high)),
    ...(high > low ? [svgElement("text", { x: 0, y: y(low) + 4 }, short(low))] : []),
    svgElement("text", { x: left, y: height - 4 }, `generation ${first}`),
    svgElement("text", { x: width, y: height - 4, "text-anchor": "end" }, String(last)),
  );
}

function short(norm: number): string {
  return norm.toPrecision(3);
}

type Attributes = Record<string, string | number>;

function element(tag: string, attributes: Attributes, ...inside: (Node | string)[]): HTMLElement {
  return fill(document.createElement(tag), attributes, inside);
}

function svgElement(tag: string, attributes: Attributes, ...inside: (Node | string)[]): SVGElement {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, inside);
}

function fill<E extends Element>(node: E, attributes: Attributes, inside: (Node | string)[]): E {
  for (const [name, value] of Object.entries(attributes)) if (value !== "") node.setAttribute(name, String(value));
  node.append(...inside);
  return node;
}
