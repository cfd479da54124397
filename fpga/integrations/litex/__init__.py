"""The engine as a LiteX module. Needs the extra ``litex``."""
