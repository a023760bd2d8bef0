/** History of adapter generations by folder, which the server does not store. Does not use `vscode`. */

import type { AdapterChange, AdapterInfo } from "./protocol";

/** One adapter generation of a folder. */
export interface Generation {
  /** When it was published, in ms since the epoch. */
  at: number;
  generation: number;
  trigger: string;
  changedFiles: number;
  files: number;
  ms: number;
  /** The largest of the changed files, and the relative change of the adapter. Rows of older versions have neither. */
  paths?: string[];
  moved?: number;
  /** Known after `c2l/adapter/info` was answered for this generation. */
  norm?: number;
  rank?: number;
}

/** The part of `vscode.Memento` that is used here. */
export interface Memento {
  get<T>(key: string): T | undefined;
  update(key: string, value: unknown): PromiseLike<void>;
}

const KEY = "generations";
const MAX_ROWS = 200;

/** Generations by folder, persisted in the workspace's storage. */
export class Generations {
  private readonly rows: Record<string, Generation[]>;

  constructor(
    private readonly memento: Memento,
    private readonly now: () => number = Date.now,
  ) {
    this.rows = { ...memento.get<Record<string, Generation[]>>(KEY) };
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
    // A restarted server reports the generation that it restored from disk; that row exists already.
    const rows = this.of(change.folder).filter((other) => other.generation !== row.generation);
    const existing = this.of(change.folder).find((other) => other.generation === row.generation);
    this.rows[change.folder] = [...rows, change.trigger === "restore" && existing ? existing : row].slice(-MAX_ROWS);
    this.save();
  }

  /** Add norm and rank to the row of the generation that `info` describes. */
  measured(info: AdapterInfo): void {
    const row = this.of(info.folder).find((one) => one.generation === info.generation);
    if (row !== undefined) {
      row.norm = info.norm;
      row.rank = info.rank;
      this.save();
    }
  }

  /**
   * Delete the rows up to and including generation `upTo`. Later rows stay: the generation that follows a reset may be
   * recorded before the reset request is answered.
   */
  deleteUpTo(folder: string, upTo: number): void {
    this.rows[folder] = this.of(folder).filter((row) => row.generation > upTo);
    this.save();
  }

  private save(): void {
    void this.memento.update(KEY, this.rows);
  }
}

function total(ms: Record<string, number>): number {
  if (typeof ms["total"] === "number") return ms["total"];
  return Object.values(ms).reduce((sum, one) => sum + one, 0);
}
