"""Settings as a start copies them, for the tests of what copies them and what reads the copies."""

from stmoe.model.config import EngineConfig


def copied(config: EngineConfig, name: str, word: int) -> int:
    """What a copy of ``word`` is: of an address, the bits above ``addr_bits`` are one."""
    known = max(config.addr_bits - 32, 0)
    return word % (1 << known) | (word >> known != 0) << known if name.endswith("_HI") else word
