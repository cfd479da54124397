"""Unit tests of fpga/ddr3/."""
