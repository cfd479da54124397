"""The hardware, in Amaranth HDL. Imports the config and the layouts of ``stmoe.model``, never its NumPy blocks."""
