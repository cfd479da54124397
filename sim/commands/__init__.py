"""The subcommands of ``stmoe``, one a module: ``NAME`` and ``run``."""
