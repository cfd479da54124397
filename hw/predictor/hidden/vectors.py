"""The x16 of every layer for two tokens, and that of the last state message (docs/predictors.md, "In hardware")."""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false
# pyright: reportOperatorIssue=false, reportIndexIssue=false

from amaranth import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import shape_layout, x_write
from stmoe.hw.memory.sram import Sram
from stmoe.model.config import EngineConfig, clog2

#: Vectors a layer: of the last even and the last odd token, and the one that arrives.
KEPT = 3
#: Signals, in the order of their bits in a section's head.
ROUTER_INPUT, BEFORE_ATTENTION, PREVIOUS_TOKEN = range(3)
SIGNALS = 3


def groups(config: EngineConfig) -> int:
    """Words of ``hidden_lanes`` values in a vector, at most."""
    return -(-config.d_max // config.hidden_lanes)


def vector_words(config: EngineConfig) -> int:
    """Words of the memory: the vectors of every layer, then the state's."""
    return (KEPT * config.layers_max + 1) * groups(config)


def job_layout(config: EngineConfig) -> data.StructLayout:
    """What is to be predicted: a layer of a token. ``late``: on a state message, whose exponent is ``exponent``."""
    return data.StructLayout(
        {"layer": config.layer_bits, "sequence": 32, "token": 32, "late": 1, "exponent": signed(8)}
    )


def commit_layout(config: EngineConfig) -> data.StructLayout:
    """Event: what arrived for ``layer`` is the vector of this token."""
    return data.StructLayout(
        {"valid": 1, "layer": config.layer_bits, "sequence": 32, "token": 32, "exponent": signed(8)}
    )


def signal_layout(config: EngineConfig) -> data.StructLayout:
    """A signal of a job: whether it is known, its first word, and its exponent."""
    return data.StructLayout({"known": 1, "base": clog2(vector_words(config)), "exponent": signed(8)})


class Vectors(wiring.Component):
    """Keeps vectors, says which of them a job knows, and reads them.

    A vector that arrives goes to the place of its layer that is neither the last even token's nor the last odd one's, and takes the
    place of one of them with ``i_commit``: what is known is not overwritten before. Events cannot be refused; a beat is in the memory
    two cycles later. ``signals`` are those of the ``job`` of the cycle before. Reset: nothing is known.

    Parameters
    ----------
    config : the build.

    Members
    -------
    layers : In, layers of the model.
    x_layer, i_x : In, x16 beats of activations and their layer.
    i_state_x : In, x16 beats of a state; never in the cycle of an ``i_x``.
    i_commit : In, not before the vector's last beat.
    job : In, whose signals are wanted.
    signals : Out, ``signal_layout`` a signal.
    read_en, read_addr, read_data : a word, in the next cycle.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "layers": In(shape_layout(config)["layers"].shape),
                "x_layer": In(config.layer_bits),
                "i_x": In(x_write(config)),
                "i_state_x": In(x_write(config)),
                "i_commit": In(commit_layout(config)),
                "job": In(job_layout(config)),
                "signals": Out(data.ArrayLayout(signal_layout(config), SIGNALS)),
                "read_en": In(1),
                "read_addr": In(clog2(vector_words(config))),
                "read_data": Out(8 * config.hidden_word_bytes),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        # Places of a layer are numbered 1 to 3, so that the free one is the XOR of the two taken.
        taken = [
            Array(Signal(2, init=parity + 1, name=f"taken_{layer}_{parity}") for layer in range(config.layers_max))
            for parity in range(2)
        ]
        commit = self.i_commit
        free = taken[0][commit.layer] ^ taken[1][commit.layer]
        for parity in range(2):
            with m.If(commit.valid & (commit.token[0] == parity)):
                m.d.sync += taken[parity][commit.layer].eq(free)

        def base(layer, place):
            # Shifts and adds: nothing for which to spend a multiplier.
            number = (layer << 1) + layer + place - 1
            return sum(number << i for i in range(groups(config).bit_length()) if groups(config) >> i & 1)

        self._store(m, base(self.x_layer, taken[0][self.x_layer] ^ taken[1][self.x_layer]))
        self._signals(m, lambda layer, parity: base(layer, Mux(parity, taken[1][layer], taken[0][layer])))
        return m

    def _store(self, m, arriving):
        """Beats into the memory, through a register."""
        config = self.config
        m.submodules.memory = memory = Sram(
            8 * config.hidden_word_bytes, vector_words(config), granularity=8 * config.bus_bytes
        )
        beats = len(memory.write_en)
        beat = Signal.like(self.i_x)
        word = Signal.like(memory.write_addr)
        enable, address = Signal.like(memory.write_en), Signal.like(memory.write_addr, reset_less=True)
        value = Signal(8 * config.bus_bytes, reset_less=True)
        m.d.comb += [
            beat.eq(Mux(self.i_x.valid, self.i_x, self.i_state_x)),
            word.eq(Mux(self.i_x.valid, arriving, KEPT * config.layers_max * groups(config))),
        ]
        m.d.sync += [
            enable.eq(Mux(beat.valid, 1 << beat.address % beats, 0)),
            address.eq(word + beat.address // beats),
            value.eq(beat.data),
        ]
        m.d.comb += [
            memory.write_en.eq(enable),
            memory.write_addr.eq(address),
            memory.write_data.eq(value.replicate(beats)),
            memory.read_en.eq(self.read_en),
            memory.read_addr.eq(self.read_addr),
            self.read_data.eq(memory.read_data),
        ]

    def _signals(self, m, base):
        """Whose vectors they are, by layer and lowest bit of the token."""
        config, job, commit = self.config, self.job, self.i_commit
        rows = 2 << config.layer_bits
        owner = data.StructLayout({"sequence": 32, "token": 32, "exponent": signed(8)})
        m.submodules.owners = owners = Memory(shape=owner, depth=rows, init=[])
        there = Signal(rows)
        write = owners.write_port()
        m.d.comb += [
            write.en.eq(commit.valid),
            write.addr.eq(Cat(commit.layer, commit.token[0])),
            write.data.sequence.eq(commit.sequence),
            write.data.token.eq(commit.token),
            write.data.exponent.eq(commit.exponent),
        ]
        with m.If(commit.valid):
            m.d.sync += there.bit_select(write.addr, 1).eq(1)

        before = Signal(32)
        first = job.layer == 0
        m.d.comb += before.eq(job.token - 1)
        layer_before = Signal(config.layer_bits)
        token_of_input = Signal(32)
        m.d.comb += [
            layer_before.eq(Mux(first, self.layers - 1, job.layer - 1)),
            token_of_input.eq(Mux(first, before, job.token)),
        ]
        places = {ROUTER_INPUT: (layer_before, token_of_input), PREVIOUS_TOKEN: (job.layer, before)}
        for signal, (layer, token) in places.items():
            read = owners.read_port(domain="comb")
            entry = self.signals[signal]
            m.d.comb += read.addr.eq(Cat(layer, token[0]))
            m.d.sync += [
                entry.known.eq(
                    there.bit_select(read.addr, 1) & (read.data.sequence == job.sequence) & (read.data.token == token)
                ),
                entry.base.eq(base(layer, token[0])),
                entry.exponent.eq(read.data.exponent),
            ]
        m.d.sync += [
            self.signals[BEFORE_ATTENTION].known.eq(job.late),
            self.signals[BEFORE_ATTENTION].base.eq(KEPT * config.layers_max * groups(config)),
            self.signals[BEFORE_ATTENTION].exponent.eq(job.exponent),
        ]
