"""Tests of hw/memory and model/crc.py."""
