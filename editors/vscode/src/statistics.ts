/** Acceptance rates, the weekly count of saved keystrokes, and the statistics page. Does not use `vscode`. */

import { type Counts, type Latency, type StatisticsReport, type Timed, type Week } from "./protocol";
import { sentenceOf } from "./reasons";

/** Returns the ISO week of a day, such as 2026-W47. */
export function weekOf(day: Date): string {
  const thursday = new Date(Date.UTC(day.getFullYear(), day.getMonth(), day.getDate()));
  thursday.setUTCDate(thursday.getUTCDate() + 4 - (thursday.getUTCDay() || 7));
  const year = thursday.getUTCFullYear();
  const number = Math.ceil(((thursday.getTime() - Date.UTC(year, 0, 1)) / 86_400_000 + 1) / 7);
  return `${year}-W${String(number).padStart(2, "0")}`;
}

/** Returns the characters that were accepted in the week of `now`. */
export function thisWeek(report: StatisticsReport, now: Date): Week {
  return report.weeks[weekOf(now)] ?? { withAdapter: 0, withoutAdapter: 0 };
}

/** Returns a sentence on the keystrokes saved in one week. */
export function weekLine(week: Week): string {
  const all = week.withAdapter + week.withoutAdapter;
  if (all === 0) return "Keystrokes saved this week: none yet.";
  return `Keystrokes saved this week: ${all} (${week.withAdapter} with adapter, ${week.withoutAdapter} without).`;
}

/** Returns the share of shown completions that were accepted, or undefined if none was shown. */
export function rate(counts: Counts): number | undefined {
  return counts.shown > 0 ? counts.accepted / counts.shown : undefined;
}

export function rejected(counts: Counts): number {
  return Math.max(0, counts.shown - counts.accepted - counts.partlyAccepted);
}

/** Returns "12 ms", or a dash if no completion was computed. */
export function milliseconds(latency: Timed, percentile: keyof Latency): string {
  return latency.count === 0 ? "–" : `${Math.round(latency[percentile])} ms`;
}

export function percent(share: number | undefined): string {
  return share === undefined ? "–" : `${Math.round(100 * share)} %`;
}

/** Returns "12 of 40 (30 %)", with and without adapter together; empty if none was shown. */
export function acceptance(report: StatisticsReport): string {
  const all = sum(report.withAdapter, report.withoutAdapter);
  return all.shown === 0 ? "" : `${all.accepted} of ${all.shown} (${percent(rate(all))})`;
}

/** Returns the statistics as a Markdown page. */
export function statisticsPage(report: StatisticsReport, week: Week): string {
  const columns = [report.withAdapter, report.withoutAdapter, sum(report.withAdapter, report.withoutAdapter)];
  const row = (name: string, value: (counts: Counts) => string | number): string =>
    `| ${name} | ${columns.map(value).join(" | ")} |`;
  const latencies = [report.latencyMsWithAdapter, report.latencyMsWithoutAdapter, report.latencyMs];
  const latencyRow = (name: string, percentile: keyof Latency): string =>
    `| ${name} | ${latencies.map((latency) => milliseconds(latency, percentile)).join(" | ")} |`;
  const reasons = Object.entries(report.reasons).sort((a, b) => b[1] - a[1]);
  return [
    "# C2L statistics",
    "",
    report.enabled
      ? "Counted on this machine. Nothing is sent anywhere."
      : "Counting is off (`c2l.statistics.enable`). The numbers below were counted before it was turned off.",
    "",
    weekLine(week),
    "",
    "| Completions | With adapter | Without adapter | Total |",
    "|---|--:|--:|--:|",
    row("Shown", (c) => c.shown),
    row("Accepted", (c) => c.accepted),
    row("Partly accepted", (c) => c.partlyAccepted),
    row("Rejected", rejected),
    row("Acceptance rate", (c) => percent(rate(c))),
    row("Accepted characters", (c) => c.acceptedChars),
    latencyRow("Latency, median", "p50"),
    latencyRow("Latency, 95th percentile", "p95"),
    "",
    report.latencyMs.count > 0
      ? `Latencies are those of the last ${report.latencyMs.count} computed completions.`
      : "No completion has been computed since the server started.",
    "",
    "| Requests | |",
    "|---|--:|",
    `| Total | ${report.requests} |`,
    `| Answered from the cache | ${report.fromCache} |`,
    `| Answered by the rest of the shown completion | ${report.typedThrough} |`,
    `| Cancelled by the next keystroke | ${report.superseded} |`,
    ...(reasons.length === 0 ? [] : ["", "## Requests without a completion", "", "| Reason | Requests |", "|---|--:|"]),
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
