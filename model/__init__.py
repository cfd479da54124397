"""The golden model: what the hardware computes, in NumPy. Imports no Amaranth."""
