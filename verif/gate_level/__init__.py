"""Netlists after synthesis against the RTL: a golden-checked unit test is recorded at a block's ports and played to its netlist."""
