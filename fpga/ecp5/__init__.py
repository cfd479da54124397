"""ECP5: models of primitives for simulation after synthesis."""
