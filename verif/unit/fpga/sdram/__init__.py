"""Unit tests of fpga/sdram/."""
