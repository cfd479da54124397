"""The host link: registers, memory and messages over a serial line (docs/link.md)."""
