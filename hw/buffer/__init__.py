"""The expert buffer: banks of chunk frames and the manager of their contents."""
