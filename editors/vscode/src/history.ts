/** What the panel remembers beyond the server's answers: generations over time. Knows no `vscode`. */

import type { AdapterChange, AdapterInfo } from "./protocol";

/** One adapter generation of a folder. `at` is ms since the epoch; norm is known once the server was asked. */
export interface Generation {
  at: number;
  generation: number;
  trigger: string;
  changedFiles: number;
  files: number;
  ms: number;
  /** The largest of the files that were read, and how far the adapter moved; absent in rows of older versions. */
  paths?: string[];
  moved?: number;
  norm?: number;
  rank?: number;
}

/** As `vscode.Memento`. */
export interface Keep {
  get<T>(key: string): T | undefined;
  update(key: string, value: unknown): PromiseLike<void>;
}

const KEY = "generations";
const MOST = 200;

/** Generations by folder, kept across windows in the workspace's storage. */
export class Generations {
  private readonly rows: Record<string, Generation[]>;

  constructor(
    private readonly keep: Keep,
    private readonly now: () => number = Date.now,
  ) {
    this.rows = { ...keep.get<Record<string, Generation[]>>(KEY) };
  }

  of(folder: string): readonly Generation[] {
    return this.rows[folder] ?? [];
  }

  record(change: AdapterChange): void {
    const row: Generation = {
      at: this.now(),
      generation: change.generation,
      trigger: change.trigger,
      changedFiles: change.changedFiles,
      files: change.adapter.files,
      ms: total(change.ms),
      paths: change.paths,
      moved: change.moved,
    };
    // A server that starts again tells the generation it restored: that is no new one.
    const rows = this.of(change.folder).filter((known) => known.generation !== row.generation);
    const known = this.of(change.folder).find((one) => one.generation === row.generation);
    this.rows[change.folder] = [...rows, change.trigger === "restore" && known ? known : row].slice(-MOST);
    this.save();
  }

  /** The adapter was looked at: complete its row. */
  measured(info: AdapterInfo): void {
    const row = this.of(info.folder).find((one) => one.generation === info.generation);
    if (row !== undefined) {
      row.norm = info.norm;
      row.rank = info.rank;
      this.save();
    }
  }

  /** Drop the rows up to a generation: the one that follows a reset may be there before the reset is answered. */
  forget(folder: string, upTo: number): void {
    this.rows[folder] = this.of(folder).filter((row) => row.generation > upTo);
    this.save();
  }

  private save(): void {
    void this.keep.update(KEY, this.rows);
  }
}

function total(ms: Record<string, number>): number {
  if (typeof ms["total"] === "number") return ms["total"];
  return Object.values(ms).reduce((sum, one) => sum + one, 0);
}
