"""On-chip memories, and the way to and from DRAM."""
