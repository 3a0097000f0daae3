"""Not Python's. Servers are run in folders with all kinds of files, and none of them is to be taken for a library."""

raise SystemExit("a file of the current folder was imported in place of Python's own")
