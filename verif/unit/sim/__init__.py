"""Unit tests of the fast back-end."""
