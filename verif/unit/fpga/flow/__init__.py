"""Tests of fpga/flow."""
