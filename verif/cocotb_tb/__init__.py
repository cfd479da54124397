"""Whole-engine regressions under cocotb: benches, models of what surrounds the engine, checkers."""
