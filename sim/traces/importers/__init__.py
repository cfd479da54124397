"""Importers of routing logs, one module a format: ``NAME``, ``matches(path, head)`` and ``read(files, given)``."""
