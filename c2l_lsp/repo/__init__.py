"""What a workspace folder holds and how it changes: files, snapshots, diffs, watching, history. No torch, no LSP."""
