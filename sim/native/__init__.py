"""C++ side of the fast back-end: the driver, the memory behind its AXI port, and the stream ends."""
