"""Where STP's rows live: on chip, or in DRAM with a buffer on chip."""
