"""The main job, shown live: a copy of a repository, the real server, and a client that plays the editor."""
