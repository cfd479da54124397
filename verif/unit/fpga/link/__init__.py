"""The host link in hardware, and its golden twin."""
