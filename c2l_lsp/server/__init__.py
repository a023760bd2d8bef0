"""The language server: transport, workspace, completion requests and reporting. Imports neither torch nor the model."""
