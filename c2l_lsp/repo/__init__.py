"""What a workspace folder holds and how it changes: files, snapshots, diffs, watching, git history. No torch, no LSP."""
