"""A core for FuseSoC: ``stmoe.core`` and its generator."""
