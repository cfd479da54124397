"""What every test run starts with."""

import os

# Before NumPy is imported: small products gain nothing from BLAS threads, and parallel tests wait for each other's.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
