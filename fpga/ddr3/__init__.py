"""DDR3: LiteDRAM's controller and PHY for the ECP5, brought up without a processor, behind AXI4."""
