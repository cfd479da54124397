"""Regressions of the whole engine: cocotb under Verilator, back-ends side by side, planted bugs."""
