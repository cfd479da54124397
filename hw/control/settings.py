"""What the registers say: the raw values as latched at start, and the run-time parameters made from them."""

from amaranth import Cat, Const, Value
from amaranth.lib import data

from stmoe.hw.layouts import SCORE_BITS
from stmoe.model.config import EngineConfig, clog2
from stmoe.model.policy import Policy
from stmoe.model.register_types import REGISTER_BITS, Access, Register
from stmoe.model.registers import SETTINGS_BASE, register_map


def settings_layout(config: EngineConfig) -> data.StructLayout:
    """The registers that a start copies, by name, as they are copied (``copied_setting``)."""
    word = Const(0, REGISTER_BITS)
    return data.StructLayout({r.name: len(copied_setting(config, r, word)) for r in settings_registers(config)})


def copied_setting(config: EngineConfig, register: Register, word: Value) -> Value:
    """What is copied of a register's ``word``: all of it; but of an address, one bit for all that are above ``addr_bits``."""
    if not register.name.endswith("_HI"):
        return word
    known = max(config.addr_bits - REGISTER_BITS, 0)
    return Cat(word[:known], word[known:].any())


def settings_registers(config: EngineConfig) -> list[Register]:
    """The registers that a start copies."""
    return [r for r in register_map(config) if r.access is Access.RW and r.offset >= SETTINGS_BASE]


def error_event() -> data.StructLayout:
    """Event: the engine met an error. ``code`` is an ``ErrorCode``; the rest goes to ERROR_INFO and ERROR_DETAIL."""
    return data.StructLayout({"valid": 1, "code": 4, "layer": 8, "expert": 12, "detail": 16})


def params_layout(config: EngineConfig) -> data.StructLayout:
    """Run-time parameters beside the model's shape: latched at start, stable while running.

    ``*_limit`` is the last address inside the window. ``policy`` is a ``model.policy.Policy``.
    """
    confidence = config.cct_counter_bits
    return data.StructLayout(
        {
            "image_id": 32,
            "router_base": config.addr_bits,
            "router_bytes": 32,
            "expert_base": config.addr_bits,
            "read_base": config.addr_bits,
            "read_limit": config.addr_bits,
            "write_base": config.addr_bits,
            "write_limit": config.addr_bits,
            "table_base": config.addr_bits,
            "hidden_base": config.addr_bits,
            "hidden_bytes": 32,
            "policy": clog2(len(Policy)),
            "split": 1,
            "serial": 1,
            "demote": 1,
            "threshold": SCORE_BITS,
            "history_weight": SCORE_BITS,
            "vote_confidence": 1,
            "step_up": confidence,
            "step_down": confidence,
            "initial": confidence,
            "counter_max": confidence,
            "prefetch_budget": 16,
            "prefetch_window": REGISTER_BITS,
            "prefetch_worth": 8,
        }
    )
