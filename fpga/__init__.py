"""Boards and synthesis."""
