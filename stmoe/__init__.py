"""stmoe: spatio-temporal expert prefetching for Mixture-of-Experts decoding, in open hardware.

The folders of the checkout are the sub-packages: ``stmoe.model`` is ``model/``, ``stmoe.hw`` is ``hw/``, and so on.
"""

__version__ = "0.1.0.dev0"
