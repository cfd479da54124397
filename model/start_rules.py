"""Golden twin of what the hardware checks when it is started (hw/control/start_check.py)."""

from collections.abc import Mapping

from stmoe.model.config import EngineConfig
from stmoe.model.error_codes import ConfigRule
from stmoe.model.policy import Policy
from stmoe.model.registers import register_map

#: All zero after reset: a start with these untouched is refused as UNCONFIGURED.
MODEL_DIMENSIONS = ("MODEL_EXPERTS", "MODEL_TOP_K", "MODEL_LAYERS", "MODEL_D", "MODEL_D_FF")

#: Policies that read the hidden image: the last numbers.
HIDDEN_POLICIES = (Policy.HIDDEN, Policy.FUSION)


def broken_rule(config: EngineConfig, values: Mapping[str, int]) -> ConfigRule | None:
    """The rule a start with the register ``values`` breaks first, or None. Registers left out have their reset values."""
    registers = register_map(config)

    def get(name: str) -> int:
        return values.get(name, registers[name].reset)

    def address(name: str) -> int:
        return get(f"{name}_LO") | get(f"{name}_HI") << 32

    def base_fits(name: str) -> bool:
        return address(name) % config.bus_bytes == 0 and address(name) < 1 << config.addr_bits

    def window_fits(name: str) -> bool:
        return address(f"{name}_BASE") <= address(f"{name}_LIMIT") < 1 << config.addr_bits

    experts, d, d_ff = get("MODEL_EXPERTS"), get("MODEL_D"), get("MODEL_D_FF")
    router_bytes = get("ROUTER_BYTES")
    learn = registers["PREDICTOR_LEARN"].decode(get("PREDICTOR_LEARN"))
    steps = max(learn["step_up"], learn["step_down"], learn["initial"])
    policy, hidden_bytes = get("POLICY"), get("HIDDEN_BYTES")
    policies = len(Policy) if config.hidden_units else HIDDEN_POLICIES[0]
    slot = config.hidden_slot_words * config.hidden_word_bytes if config.hidden_units else 0
    head = config.hidden_head_words * config.hidden_word_bytes if policy in HIDDEN_POLICIES else 0
    kept = {
        ConfigRule.EXPERTS: 1 <= experts <= config.experts_max,
        ConfigRule.TOP_K: 1 <= get("MODEL_TOP_K") <= min(experts, config.top_k_max),
        ConfigRule.LAYERS: 1 <= get("MODEL_LAYERS") <= config.layers_max,
        ConfigRule.D_MODEL: d % config.lanes == 0 and 4 * config.segments <= d <= config.d_max,
        ConfigRule.D_FF: d_ff % config.chunk_units == 0 and 1 <= d_ff <= config.d_ff_max,
        ConfigRule.SHARED: get("MODEL_SHARED") <= config.shared_max,
        ConfigRule.ROUTED_SCALE: get("ROUTED_SCALE") != 0,
        ConfigRule.IMAGE_ID: get("IMAGE_ID") != 0,
        ConfigRule.ROUTER_BASE: base_fits("ROUTER_BASE"),
        ConfigRule.ROUTER_BYTES: router_bytes % config.bus_bytes == 0
        and router_bytes >= config.router_head_bytes + 2 * experts * d,
        ConfigRule.EXPERT_BASE: base_fits("EXPERT_BASE"),
        ConfigRule.READ_WINDOW: window_fits("READ_WINDOW"),
        ConfigRule.WRITE_WINDOW: window_fits("WRITE_WINDOW"),
        ConfigRule.POLICY: policy < policies,
        ConfigRule.PREDICTOR: steps <= learn["counter_max"] < 1 << config.cct_counter_bits,
        ConfigRule.TABLE_BASE: base_fits("TABLE_BASE"),
        ConfigRule.HIDDEN_BASE: base_fits("HIDDEN_BASE"),
        ConfigRule.HIDDEN_BYTES: hidden_bytes % config.bus_bytes == 0 and head <= hidden_bytes <= slot,
    }
    return next((rule for rule, holds in kept.items() if not holds), None)
