"""The engine in other people's systems: FuseSoC, LiteX, and a playback for any Verilog simulator."""
