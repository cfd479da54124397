"""Timing of the memory behind the engine's AXI port: configurations, command-level model, AXI slave."""
