"""What a user runs: the compiled engine, the DRAM model, the demo and the command line."""
