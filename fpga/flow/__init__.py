"""From a design to a bitstream: yosys, nextpnr and ecppack from pip, and what they report."""
