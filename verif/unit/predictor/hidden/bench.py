"""The hidden-state predictor with its loader on a bench: events in, sections from an image, answers out."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from amaranth import Module, ResetInserter, Signal
from amaranth.lib.wiring import Component, Out, connect

from stmoe.hw.layouts import Destination, LandedStatus
from stmoe.hw.predictor.hidden.loader import HiddenLoader
from stmoe.hw.predictor.hidden.unit import HiddenPredictor
from stmoe.model.config import EngineConfig
from stmoe.model.crc import chunk_seed
from stmoe.model.hidden_image import HiddenImage
from stmoe.model.numerics import Ints
from stmoe.model.predictor.hidden import Signal as Vector
from stmoe.model.predictor.hidden_unit import HiddenUnit, Scored
from stmoe.model.predictor.next_gate import Gate
from stmoe.model.predictor.ranker import RankerLayer
from stmoe.model.predictor.sections import Section
from stmoe.model.presets import preset
from stmoe.model.shape import ModelShape
from stmoe.verif.unit.bench import simulate

BASE, IMAGE_ID = 0x8000, 0x5A5A_0001
_TEST = preset("test")[0]
#: A bus word a word, few slots; a model smaller than the build, its width no multiple of two groups.
NARROW = replace(_TEST, name="narrow", d_max=40, hidden_units=8, hidden_lanes=4, hidden_slots=2)
NARROW_SHAPE = ModelShape(experts=7, top_k=2, layers=3, d_model=24, d_ff=16)
#: Four bus words a word, a slot a layer, rows of a word; the width no multiple of the lanes.
WIDE = replace(_TEST, name="wide", experts_max=6, d_max=40, hidden_units=32, hidden_lanes=16, hidden_slots=4)
WIDE_SHAPE = ModelShape(experts=5, top_k=3, layers=3, d_model=24, d_ff=16)
#: All that the build can have.
FULL = replace(_TEST, name="full", d_max=40, hidden_units=16, hidden_lanes=8, hidden_slots=4)
FULL_SHAPE = ModelShape(experts=8, top_k=3, layers=4, d_model=40, d_ff=16)

KINDS: dict[str, tuple[tuple[Vector, ...], bool, bool]] = {
    "next-gate": ((Vector.ROUTER_INPUT,), False, False),
    "next-gate-late": ((Vector.BEFORE_ATTENTION,), False, False),
    "default-vector": ((Vector.ROUTER_INPUT,), False, True),
    "pre-attention": ((Vector.BEFORE_ATTENTION,), True, False),
    "two-token-early": ((Vector.ROUTER_INPUT, Vector.PREVIOUS_TOKEN), True, False),
    "two-token-late": ((Vector.BEFORE_ATTENTION, Vector.PREVIOUS_TOKEN), True, False),
    "token before": ((Vector.PREVIOUS_TOKEN,), True, False),
    "both of now": ((Vector.ROUTER_INPUT, Vector.BEFORE_ATTENTION), True, False),
}


def sections(config: EngineConfig, shape: ModelShape, kind: str, rng: np.random.Generator, wild: bool = False):
    """Random sections of a kind, one a layer; ``wild`` numbers saturate wherever they can."""
    signals, ranker, effects = KINDS[kind]
    experts, d = shape.experts, shape.d_model

    def numbers(size: int, *dims: int) -> Ints:
        return rng.integers(-size, size + 1, dims)

    def gate() -> Section:
        weights = numbers(32767 if wild else 300, experts, d).astype(np.int16)
        rows = numbers(32767 if wild else 6000, experts, experts).astype(np.int16) if effects else None
        return Section(signals, Gate(weights, int(rng.choice([0, 1, 40, 63]) if wild else rng.integers(0, 4))), rows)

    def two_layers() -> Section:
        units = int(rng.integers(1, config.hidden_units // config.hidden_lanes + 1)) * config.hidden_lanes
        # Some that the packer pads.
        units -= int(rng.integers(0, 3))
        return Section(
            signals,
            RankerLayer(
                tuple(numbers(127, units, d).astype(np.int8) for _ in signals),
                numbers((1 << 31) - 1 if wild else 3000, units).astype(np.int32),
                numbers(32767, experts, units).astype(np.int16),
                int(rng.choice([1, 31]) if wild else rng.integers(12, 16)),
                numbers((1 << 31) - 1 if wild else 4000, experts).astype(np.int32),
            ),
        )

    out = [two_layers() if ranker else gate() for _ in range(shape.layers)]
    if not ranker and signals == (Vector.ROUTER_INPUT,):
        out[0] = Section()
    return out


@dataclass(frozen=True, eq=False)
class Event:
    """Something the unit hears: a state message, or activations with their routing."""

    kind: str
    layer: int
    sequence: int
    token: int
    x16: Ints
    exponent: int
    ids: list[int] = field(default_factory=list)
    weights: list[int] = field(default_factory=list)


def events(shape: ModelShape, tokens: int, seed: int, wild: bool = False) -> list[Event]:
    """Tokens layer by layer; the third is of another sequence, the fourth skips two; numbers pass the end of their width."""
    rng = np.random.default_rng(seed)
    sequence, token, out = 3, 0xFFFF_FFFE, []
    for number in range(tokens):
        token += 1
        if number % 5 == 2:
            sequence ^= 1
        if number % 5 == 3:
            token += 2
        place = {"sequence": sequence, "token": token & 0xFFFF_FFFF}
        for layer in range(shape.layers):
            for kind in ("state", "routed"):
                size = int(rng.choice([32767, 1])) if wild else 2000
                exponent = int(rng.choice([-128, -3, 20, 40, 127])) if wild else int(rng.integers(4, 9))
                x16 = rng.integers(-size - 1, size + 1, shape.d_model)
                if wild and rng.random() < 0.3:
                    x16 = np.full(shape.d_model, -32768)
                ids = rng.permutation(shape.experts)[: shape.top_k].tolist()
                weights = (rng.integers(0, 1 << 20 if wild else 1 << 16, shape.top_k)).tolist()
                out.append(Event(kind, layer, **place, x16=x16, exponent=exponent, ids=ids, weights=weights))
    return out


def expected(parts: Sequence[Section], shape: ModelShape, heard: Sequence[Event]) -> list[Scored | None]:
    """What the twin says to each event."""
    twin = HiddenUnit(parts, shape.top_k)
    said = []
    for event in heard:
        at = (event.layer, event.sequence, event.token)
        if event.kind == "state":
            said.append(twin.state(*at, event.x16, event.exponent))
            continue
        twin.activations(*at, event.x16, event.exponent)
        said.append(twin.routed(*at, event.ids, event.weights))
    return said


@dataclass(frozen=True)
class Answer:
    """What came out: scores by expert, the items of the prediction, the cycle of its last one."""

    layer: int
    sequence: int
    token: int
    scores: list[int]
    items: list[tuple[int, int]]
    cycle: int


def answer_of(scored: Scored, threshold: int) -> Answer:
    """What should come out."""
    scores = scored.scores.tolist()
    named = [(e, s) for e, s in enumerate(scores) if s >= max(1, threshold)]
    return Answer(scored.target.layer, scored.target.sequence, scored.target.token, scores, named, 0)


class Together(Component):
    """Unit and loader, wired as the engine wires them."""

    def __init__(self, config: EngineConfig):
        self.unit = HiddenPredictor(config)
        self.loader = HiddenLoader(config)
        super().__init__({"alive": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.unit, m.submodules.loader = self.unit, self.loader
        connect(m, self.unit.o_want, self.loader.i_want)
        m.d.comb += self.unit.slot.eq(self.loader.slot)
        return m


class Bench:
    """One run.

    Attributes
    ----------
    stall, idle : chance that the prediction is refused, that a beat is not there, a cycle.
    latency : most cycles until the first word of a section.
    weights_late : cycles from a routing to its weights, less one.
    answers : what came out.
    starts : the cycle in which each event was taken.
    """

    def __init__(self, config, shape, parts: Sequence[Section], seed: int, threshold: int = 1):
        self.config, self.shape, self.threshold = config, shape, threshold
        self.image = HiddenImage(config, shape).pack(parts, IMAGE_ID)
        self.rng = random.Random(seed)
        self.answers: list[Answer] = []
        self.starts: list[int] = []
        self.stall, self.idle, self.latency, self.weights_late = 0.3, 0.3, 30, 5
        self.cycle = 0
        self.dut = Together(config)
        self.reset = Signal()

    def run(self, heard: Sequence[Event], gaps: Sequence[int | None] | None = None, reset_before: int | None = None):
        """Send events, each the given cycles after the one before (None: when all is quiet again), with a reset before one of them."""
        unit, loader = self.dut.unit, self.dut.loader

        async def drive(ctx):
            config, shape = self.config, self.shape
            ctx.set(
                unit.shape,
                {
                    "experts": shape.experts,
                    "top_k": shape.top_k,
                    "layers": shape.layers,
                    "d_beats": 2 * shape.d_model // config.bus_bytes,
                },
            )
            ctx.set(unit.threshold, self.threshold)
            ctx.set(loader.base, BASE)
            ctx.set(loader.stride, len(self.image) // shape.layers)
            ctx.set(loader.beats, len(self.image) // shape.layers // config.bus_bytes)
            ctx.set(loader.image_id, IMAGE_ID)
            for number, (event, gap) in enumerate(zip(heard, gaps or [None] * len(heard), strict=True)):
                if number == reset_before:
                    ctx.set(self.reset, 1)
                    await ctx.tick()
                    ctx.set(self.reset, 0)
                await self._send(ctx, event)
                if gap is None:
                    await self._quiet(ctx)
                elif gap > 0:
                    await ctx.tick().repeat(gap)
            await self._quiet(ctx)

        dut = ResetInserter(self.reset)(self.dut)
        simulate(dut, drive, background=(self._count, self._serve, self._watch), timeout_cycles=60_000)

    async def _quiet(self, ctx):
        calm = 0
        while calm < 4:
            await ctx.tick()
            calm = 0 if ctx.get(self.dut.unit.busy) else calm + 1

    async def _count(self, ctx):
        while True:
            await ctx.tick()
            self.cycle += 1

    async def _send(self, ctx, event: Event):
        unit, rng, bus = self.dut.unit, self.rng, self.config.bus_bytes
        port = unit.i_state_x if event.kind == "state" else unit.i_x
        ctx.set(unit.x_layer, event.layer)
        raw = event.x16.astype("<i2").tobytes()
        for address in range(len(raw) // bus):
            while rng.random() < self.idle:
                await ctx.tick()
            word = int.from_bytes(raw[address * bus : (address + 1) * bus], "little")
            ctx.set(port, {"valid": 1, "address": address, "data": word})
            await ctx.tick()
            ctx.set(port, {"valid": 0})
        place = {"layer": event.layer, "sequence": event.sequence, "token": event.token}
        if event.kind == "state":
            ctx.set(unit.i_state.payload, {**place, "exponent": event.exponent})
            stream = unit.i_state
        else:
            padded = event.ids + [0] * (self.config.top_k_max - len(event.ids))
            # The router clears them as it starts.
            ctx.set(unit.weights.valid, 0)
            ctx.set(unit.exponent, event.exponent)
            ctx.set(unit.i_routed.payload, {**place, "count": len(event.ids), "ids": padded})
            stream = unit.i_routed
        ctx.set(stream.valid, 1)
        await ctx.tick().until(stream.ready)
        ctx.set(stream.valid, 0)
        if event.kind == "routed":
            for _ in range(self.weights_late):
                await ctx.tick()
            values = event.weights + [rng.getrandbits(20)] * (self.config.top_k_max - len(event.weights))
            ctx.set(unit.weights, {"valid": 1, "values": values})

    async def _serve(self, ctx):
        """DRAM and DMA: a fetch becomes writes and a landing."""
        unit, loader, rng, bus = self.dut.unit, self.dut.loader, self.rng, self.config.bus_bytes
        stride = len(self.image) // self.shape.layers
        while True:
            ctx.set(loader.o_fetch.ready, 1)
            (request,) = await ctx.tick().sample(loader.o_fetch.payload).until(loader.o_fetch.valid)
            ctx.set(loader.o_fetch.ready, 0)
            layer = request.ref.layer
            assert request.destination == Destination.HIDDEN
            assert (request.address, request.beats) == (BASE + layer * stride, stride // bus)
            assert request.seed == chunk_seed(IMAGE_ID, layer, 0xFFF, 0xFFE)
            await ctx.tick().repeat(1 + rng.randrange(self.latency))
            part = self.image[layer * stride : (layer + 1) * stride]
            for word in range(stride // bus):
                data = int.from_bytes(part[word * bus : (word + 1) * bus], "little")
                ctx.set(unit.i_write, {"valid": 1, "slot": request.frame, "word": word, "data": data})
                await ctx.tick()
            ctx.set(unit.i_write, {"valid": 0})
            landed = {"status": LandedStatus.OK, "destination": Destination.HIDDEN, "frame": request.frame}
            await ctx.tick()
            ctx.set(loader.i_landed, landed)
            ctx.set(loader.landed_valid, 1)
            await ctx.tick()
            ctx.set(loader.landed_valid, 0)

    async def _watch(self, ctx):
        """Answers: scores and items, with backpressure."""
        unit, rng = self.dut.unit, self.rng
        scores: list[int] = []
        items: list[tuple[int, int]] = []
        target = None
        while True:
            ctx.set(unit.o_prediction.ready, rng.random() >= self.stall)
            if ctx.get((unit.i_routed.valid & unit.i_routed.ready) | (unit.i_state.valid & unit.i_state.ready)):
                self.starts.append(self.cycle)
            if ctx.get(unit.o_scores.valid):
                event = ctx.get(unit.o_scores)
                here = (ctx.get(unit.target_layer), ctx.get(unit.target_sequence), ctx.get(unit.target_token))
                assert event.expert == len(scores), "experts in rising order"
                assert target in (None, here), "the target moved"
                target = here
                scores.append(event.score)
                assert event.last == (len(scores) == self.shape.experts)
            if ctx.get(unit.o_prediction.valid & unit.o_prediction.ready):
                out = ctx.get(unit.o_prediction.payload)
                assert target is not None
                assert out.ref.layer == target[0]
                if not out.none:
                    items.append((out.ref.expert, out.score))
                if out.last:
                    assert out.none == (not items)
                    self.answers.append(Answer(*target, scores, items, self.cycle))
                    scores, items, target = [], [], None
            if ctx.get(self.reset):
                scores, items, target = [], [], None
            await ctx.tick()
