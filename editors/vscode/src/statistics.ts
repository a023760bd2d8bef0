/** Counts in words: rates, a week's saved keystrokes, the statistics page. Knows no `vscode`. */

import { type Counts, type Latency, type StatisticsReport, type Timed, type Week } from "./protocol";
import { sentenceOf } from "./reasons";

/** ISO week of a day, such as 2026-W47. */
export function weekOf(day: Date): string {
  const thursday = new Date(Date.UTC(day.getFullYear(), day.getMonth(), day.getDate()));
  thursday.setUTCDate(thursday.getUTCDate() + 4 - (thursday.getUTCDay() || 7));
  const year = thursday.getUTCFullYear();
  const number = Math.ceil(((thursday.getTime() - Date.UTC(year, 0, 1)) / 86_400_000 + 1) / 7);
  return `${year}-W${String(number).padStart(2, "0")}`;
}

/** What was accepted this week, as the server counts it. */
export function thisWeek(report: StatisticsReport, now: Date): Week {
  return report.weeks[weekOf(now)] ?? { withAdapter: 0, withoutAdapter: 0 };
}

/** One line a week. */
export function weekLine(week: Week): string {
  const all = week.withAdapter + week.withoutAdapter;
  if (all === 0) return "No keystrokes saved yet this week.";
  return `${all} keystrokes saved this week: ${week.withAdapter} with the adapter, ${week.withoutAdapter} without.`;
}

export function rate(counts: Counts): number | undefined {
  return counts.shown > 0 ? counts.accepted / counts.shown : undefined;
}

export function rejected(counts: Counts): number {
  return Math.max(0, counts.shown - counts.accepted - counts.partlyAccepted);
}

/** "12 ms", or a dash where nothing was computed. */
export function milliseconds(latency: Timed, share: keyof Latency): string {
  return latency.count === 0 ? "–" : `${Math.round(latency[share])} ms`;
}

export function percent(share: number | undefined): string {
  return share === undefined ? "–" : `${Math.round(100 * share)} %`;
}

/** "12 of 40 (30 %)", both kinds together. */
export function acceptance(report: StatisticsReport): string {
  const all = sum(report.withAdapter, report.withoutAdapter);
  return all.shown === 0 ? "" : `${all.accepted} of ${all.shown} (${percent(rate(all))})`;
}

/** The statistics as a Markdown page. */
export function page(report: StatisticsReport, week: Week): string {
  const columns = [report.withAdapter, report.withoutAdapter, sum(report.withAdapter, report.withoutAdapter)];
  const row = (name: string, value: (counts: Counts) => string | number): string =>
    `| ${name} | ${columns.map(value).join(" | ")} |`;
  const times = [report.latencyMsWithAdapter, report.latencyMsWithoutAdapter, report.latencyMs];
  const timed = (name: string, share: keyof Latency): string =>
    `| ${name} | ${times.map((latency) => milliseconds(latency, share)).join(" | ")} |`;
  const reasons = Object.entries(report.reasons).sort((a, b) => b[1] - a[1]);
  return [
    "# C2L statistics",
    "",
    report.enabled
      ? "Counted on this machine only; nothing is sent anywhere."
      : "Counting is off (`c2l.statistics.enable`); these are the counts from before.",
    "",
    weekLine(week),
    "",
    "| | with adapter | without | together |",
    "|---|--:|--:|--:|",
    row("shown", (c) => c.shown),
    row("accepted", (c) => c.accepted),
    row("accepted in part", (c) => c.partlyAccepted),
    row("rejected", rejected),
    row("acceptance", (c) => percent(rate(c))),
    row("characters accepted", (c) => c.acceptedChars),
    timed("latency, median", "p50"),
    timed("latency, p95", "p95"),
    "",
    `Requests: ${report.requests}, of them ${report.fromCache} answered from the cache, ` +
      `${report.typedThrough} by typing along, ${report.superseded} overtaken by the next keystroke.`,
    "",
    report.latencyMs.count > 0
      ? `The latencies are of the last ${report.latencyMs.count} computed completions.`
      : "No completion has been computed yet since the server started.",
    ...(reasons.length === 0 ? [] : ["", "## When nothing was shown", "", "| why | times |", "|---|--:|"]),
    ...reasons.map(([reason, times]) => `| ${sentenceOf(reason)} | ${times} |`),
    "",
  ].join("\n");
}

function sum(a: Counts, b: Counts): Counts {
  return {
    shown: a.shown + b.shown,
    accepted: a.accepted + b.accepted,
    partlyAccepted: a.partlyAccepted + b.partlyAccepted,
    acceptedChars: a.acceptedChars + b.acceptedChars,
    shownChars: a.shownChars + b.shownChars,
  };
}
