"""The host's end of the link: driver, upload, and an engine at the other end of a cable (docs/link.md)."""
