"""The engine in other simulators and flows."""
