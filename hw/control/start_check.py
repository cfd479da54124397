"""What happens to the latched registers before a run: legality, and the values that the blocks want instead."""

from amaranth import Cat, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from stmoe.hw.control.settings import params_layout, settings_layout
from stmoe.hw.layouts import shape_layout
from stmoe.model.config import EngineConfig
from stmoe.model.error_codes import ConfigRule
from stmoe.model.policy import Policy
from stmoe.model.registers import register_map
from stmoe.model.start_rules import HIDDEN_POLICIES, MODEL_DIMENSIONS


def _multiple(value: Value, power_of_two: int) -> Value:
    return value[: exact_log2(power_of_two)] == 0


def _quotient(value: Value, power_of_two: int) -> Value:
    return value[exact_log2(power_of_two) :]


class StartCheck(wiring.Component):
    """Checks latched registers against the rules (``ConfigRule``) and derives shape and parameters from them.

    Latency: ``o_rule`` and ``o_shape`` are those of the ``settings`` one cycle ago; everything else is combinational. Shape and
    parameters mean something for legal settings only. Reset: one cycle after, ``o_rule`` is valid.

    Parameters
    ----------
    config : the build.

    Members
    -------
    settings : In, the latched registers.
    o_rule : Out, number of the first broken rule, 0 if none.
    o_untouched : Out, no model dimension has been written.
    o_shape : Out, ``shape_layout``.
    o_params : Out, ``params_layout``.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "settings": In(settings_layout(config)),
                "o_rule": Out(5),
                "o_untouched": Out(1),
                "o_shape": Out(shape_layout(config)),
                "o_params": Out(params_layout(config)),
            }
        )

    def elaborate(self, platform):
        """Rules, shape and parameters."""
        m = Module()
        dimensions = Cat(self.settings[name] for name in MODEL_DIMENSIONS)
        m.d.comb += self.o_untouched.eq(dimensions == 0)
        kept = {}
        for number, holds in self._rules().items():
            kept[number] = Signal(name=f"kept_{number.name}", init=1)
            m.d.sync += kept[number].eq(holds)
        kept[ConfigRule.ROUTER_BYTES] &= self._router_weights_fit(m)
        # The lowest number wins: later assignments override, so the rules are written in falling order.
        for number in sorted(kept, reverse=True):
            with m.If(~kept[number]):
                m.d.comb += self.o_rule.eq(number)
        self._elaborate_shape(m)
        self._elaborate_params(m)
        return m

    def _value(self, name: str):
        return self.settings[name][: register_map(self.config)[name].mask.bit_length()]

    def _address(self, name: str):
        return Cat(self.settings[f"{name}_LO"], self.settings[f"{name}_HI"])

    def _field(self, register: str, name: str):
        field = register_map(self.config)[register].field(name)
        return self.settings[register][field.lsb : field.lsb + field.width]

    def _router_weights_fit(self, m: Module):
        """Whether the weights fit behind the head of a router image, of the settings one cycle ago: a product, then a comparison."""
        config = self.config
        experts, d = self._value("MODEL_EXPERTS"), self._value("MODEL_D")
        router_bytes = self._value("ROUTER_BYTES")
        # Only legal factors matter (else an earlier rule is broken), so the product may be that of the bits in range.
        weights = Signal(config.experts_max.bit_length() + config.d_max.bit_length(), reset_less=True)
        room = Signal(len(router_bytes), reset_less=True)
        m.d.sync += [
            weights.eq(experts[: config.experts_max.bit_length()] * d[: config.d_max.bit_length()]),
            room.eq(router_bytes - config.router_head_bytes),
        ]
        # Bytes come in whole bus words, a weight has two.
        return room[1:] >= weights

    def _rules(self):
        config = self.config
        experts, top_k, layers = (self._value(f"MODEL_{n}") for n in ("EXPERTS", "TOP_K", "LAYERS"))
        d, d_ff, shared = (self._value(f"MODEL_{n}") for n in ("D", "D_FF", "SHARED"))
        router_bytes = self._value("ROUTER_BYTES")
        counter_max = self._field("PREDICTOR_LEARN", "counter_max")
        steps = [self._field("PREDICTOR_LEARN", name) for name in ("step_up", "step_down", "initial")]
        policy, hidden_bytes = self._value("POLICY"), self._value("HIDDEN_BYTES")
        policies = len(Policy) if config.hidden_units else HIDDEN_POLICIES[0]
        slot = config.hidden_slot_words * config.hidden_word_bytes if config.hidden_units else 0
        head = config.hidden_head_words * config.hidden_word_bytes
        reads_hidden = Cat(policy == p for p in HIDDEN_POLICIES).any()
        return {
            ConfigRule.EXPERTS: (experts >= 1) & (experts <= config.experts_max),
            ConfigRule.TOP_K: (top_k >= 1) & (top_k <= config.top_k_max) & (top_k <= experts),
            ConfigRule.LAYERS: (layers >= 1) & (layers <= config.layers_max),
            ConfigRule.D_MODEL: _multiple(d, config.lanes) & (d >= 4 * config.segments) & (d <= config.d_max),
            ConfigRule.D_FF: _multiple(d_ff, config.chunk_units) & (d_ff >= 1) & (d_ff <= config.d_ff_max),
            ConfigRule.SHARED: shared <= config.shared_max,
            ConfigRule.ROUTED_SCALE: self._value("ROUTED_SCALE") != 0,
            ConfigRule.IMAGE_ID: self._value("IMAGE_ID") != 0,
            ConfigRule.ROUTER_BASE: self._base_fits("ROUTER_BASE"),
            ConfigRule.ROUTER_BYTES: _multiple(router_bytes, config.bus_bytes)
            & (router_bytes >= config.router_head_bytes),
            ConfigRule.EXPERT_BASE: self._base_fits("EXPERT_BASE"),
            ConfigRule.READ_WINDOW: self._window_fits("READ_WINDOW"),
            ConfigRule.WRITE_WINDOW: self._window_fits("WRITE_WINDOW"),
            ConfigRule.POLICY: policy < policies,
            ConfigRule.PREDICTOR: Cat(step <= counter_max for step in steps).all()
            & (counter_max < 1 << config.cct_counter_bits),
            ConfigRule.TABLE_BASE: self._base_fits("TABLE_BASE"),
            ConfigRule.HIDDEN_BASE: self._base_fits("HIDDEN_BASE"),
            ConfigRule.HIDDEN_BYTES: _multiple(hidden_bytes, config.bus_bytes)
            & (hidden_bytes <= slot)
            & (~reads_hidden | (hidden_bytes >= head)),
        }

    def _base_fits(self, name: str):
        address = self._address(name)
        return _multiple(address, self.config.bus_bytes) & (address < 1 << self.config.addr_bits)

    def _window_fits(self, name: str):
        base, limit = self._address(f"{name}_BASE"), self._address(f"{name}_LIMIT")
        return (base <= limit) & (limit < 1 << self.config.addr_bits)

    def _elaborate_shape(self, m: Module):
        config, shape = self.config, self.o_shape
        d, d_ff = self._value("MODEL_D"), self._value("MODEL_D_FF")
        # Three times d, as a sum: a product by a constant would take a multiplier.
        weight_beats = _quotient((d + (d << 1)) << exact_log2(config.chunk_units), config.bus_bytes)
        m.d.sync += [
            shape.experts.eq(self._value("MODEL_EXPERTS")),
            shape.top_k.eq(self._value("MODEL_TOP_K")),
            shape.layers.eq(self._value("MODEL_LAYERS")),
            shape.shared.eq(self._value("MODEL_SHARED")),
            shape.row_words.eq(_quotient(d, config.lanes)),
            shape.out_words.eq(_quotient(d, config.segments)),
            shape.d_beats.eq(_quotient(d, config.router_lanes)),
            shape.chunks.eq(_quotient(d_ff, config.chunk_units)),
            shape.chunk_beats.eq(config.meta_bytes // config.bus_bytes + weight_beats),
            shape.renormalise.eq(self._field("MODEL_FLAGS", "renormalise")),
            shape.routed_scale.eq(self._value("ROUTED_SCALE")),
        ]

    def _elaborate_params(self, m: Module):
        params = self.o_params
        m.d.comb += [
            params.image_id.eq(self._value("IMAGE_ID")),
            params.router_base.eq(self._address("ROUTER_BASE")),
            params.router_bytes.eq(self._value("ROUTER_BYTES")),
            params.expert_base.eq(self._address("EXPERT_BASE")),
            params.read_base.eq(self._address("READ_WINDOW_BASE")),
            params.read_limit.eq(self._address("READ_WINDOW_LIMIT")),
            params.write_base.eq(self._address("WRITE_WINDOW_BASE")),
            params.write_limit.eq(self._address("WRITE_WINDOW_LIMIT")),
            params.table_base.eq(self._address("TABLE_BASE")),
            params.hidden_base.eq(self._address("HIDDEN_BASE")),
            params.hidden_bytes.eq(self._value("HIDDEN_BYTES")),
            params.policy.eq(self._value("POLICY")),
            params.prefetch_budget.eq(self._value("PREFETCH_BUDGET")),
            params.prefetch_worth.eq(self._value("PREFETCH_WORTH")),
            params.prefetch_window.eq(self._value("PREFETCH_WINDOW")),
        ]
        for name in ("split", "serial", "demote"):
            m.d.comb += params[name].eq(self._field("SCHEDULE", name))
        for name in ("threshold", "history_weight", "vote_confidence"):
            m.d.comb += params[name].eq(self._field("PREDICTOR_SCORE", name))
        for name in ("step_up", "step_down", "initial", "counter_max"):
            m.d.comb += params[name].eq(self._field("PREDICTOR_LEARN", name))
