"""The one filter: which files of a folder may be read at all, and the only code that opens one."""
