"""Unit tests of hw/buffer."""
