"""The driver of the host link, and ``stmoe host``."""
