"""A board without a board: its core with models of the chips around it, compiled, at the end of a pty or TCP port."""
