"""The bench of the whole engine: clock, reset, AXI4-Lite master, activation streams, memory and checkers in one object.

Memory, register bus and streams are cocotbext-axi's, a third party's reading of the protocols, each stalled at random.
"""

import itertools
import logging
import os
import random
from collections.abc import Iterable, Mapping, Sequence

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge, with_timeout
from cocotbext.axi import (
    AxiBus,
    AxiLiteBus,
    AxiLiteMaster,
    AxiResp,
    AxiSlave,
    AxiStreamBus,
    AxiStreamSink,
    AxiStreamSource,
)
from cocotbext.axi.address_space import Region
from numpy.typing import NDArray

from stmoe.model.counters import COUNTERS
from stmoe.model.error_codes import ErrorCode
from stmoe.model.hidden_image import HiddenImage
from stmoe.model.images import check_image, pack, read_header
from stmoe.model.moe import LayerResult, QuantisedModel, moe_layer
from stmoe.model.predictor.sections import Section
from stmoe.model.presets import preset
from stmoe.model.quantize import random_activations
from stmoe.model.registers import register_map
from stmoe.model.router import Routing
from stmoe.sim.messages import Activations, Hint, Result, State
from stmoe.sim.session import Setting, hidden_address, hidden_values, register_values
from stmoe.verif.cocotb_tb.observer import Observer

CONFIG, SHAPE = preset("test")
REGISTERS = register_map(CONFIG)
#: Of models, tokens and stalls: what the failing run printed repeats it.
SEED = int(os.environ.get("STMOE_SEED", "1"))
PERIOD_NS = 10
#: Cycles a message may take, stalls included: ten times what the slowest of these tests needs.
PATIENCE = 60_000


class Memory(Region):
    """Bytes behind the AXI slave; reads of a fault range [low, high) answer SLVERR."""

    def __init__(self, size: int):
        super().__init__(size)
        self.bytes = np.zeros(size, np.uint8)
        self.faults: list[tuple[int, int]] = []

    async def _read(self, address, length, **kwargs):
        if any(low < address + length and address < high for low, high in self.faults):
            raise ValueError("fault range")
        return self.bytes[address : address + length].tobytes()


def pauses(rng: random.Random, probability: float) -> Iterable[bool]:
    """A generator for ``set_pause_generator``: stretches of stalls and of traffic."""
    while True:
        # Stretches, and not single cycles alone, let queues run full and empty.
        stall = rng.random() < probability
        yield from itertools.repeat(stall, rng.choice([1, 1, 2, 7]))


class TB:
    """A test's bench. ``await tb.begin()`` first, ``await tb.finish()`` last.

    Parameters
    ----------
    dut : the exported engine, preset ``test``.
    stall : probability of a stall on every channel; 0: none.
    memory_bytes : size of the memory.
    """

    def __init__(self, dut, *, stall: float = 0.3, memory_bytes: int = 1 << 18):
        self.dut = dut
        self.rng = random.Random(SEED)
        self.np_rng = np.random.default_rng(SEED)
        for name in ("aclk", "aresetn"):
            getattr(dut, name).value = 0
        logging.getLogger("cocotb.stmoe_engine").setLevel(logging.ERROR)
        self.memory = Memory(memory_bytes)
        wires = (dut.aclk, dut.aresetn)
        reset_low = {"reset_active_level": False}
        self.slave = AxiSlave(AxiBus.from_prefix(dut, "m_axi"), *wires, target=self.memory, **reset_low)
        self.axil = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), *wires, **reset_low)
        lanes = {"byte_lanes": CONFIG.bus_bytes}
        self.source = AxiStreamSource(AxiStreamBus.from_prefix(dut, "s_axis"), *wires, **reset_low, **lanes)
        self.sink = AxiStreamSink(AxiStreamBus.from_prefix(dut, "m_axis"), *wires, **reset_low, **lanes)
        self.observer = Observer(dut, CONFIG)
        if stall:
            self._stall(stall)
        self._model: QuantisedModel | None = None

    def _stall(self, probability: float) -> None:
        interfaces = (self.slave.read_if, self.axil.write_if, self.axil.read_if)
        names = ("ar_channel", "r_channel", "aw_channel", "w_channel", "b_channel")
        channels = [getattr(i, name) for i in interfaces for name in names if hasattr(i, name)]
        for channel in (*channels, self.source, self.sink):
            channel.set_pause_generator(pauses(random.Random(self.rng.random()), probability))

    @property
    def model(self) -> QuantisedModel:
        """The model in memory."""
        if self._model is None:
            raise RuntimeError("configure first")
        return self._model

    async def begin(self) -> None:
        """Clock and reset."""
        cocotb.start_soon(Clock(self.dut.aclk, PERIOD_NS, "ns").start())
        cocotb.start_soon(self.observer.run())
        await self.reset()

    async def reset(self) -> None:
        """``aresetn`` low for some cycles."""
        self.dut.aresetn.value = 0
        await ClockCycles(self.dut.aclk, 5)
        self.dut.aresetn.value = 1
        await ClockCycles(self.dut.aclk, 2)

    async def finish(self) -> None:
        """Stop, then check that nothing is outstanding and that no answer is left over."""
        assert self.sink.empty(), "a message that nobody asked for"
        await self.stop()
        await self.cycles(20)
        self.observer.read_checker.finish()
        self.observer.write_checker.finish()

    async def cycles(self, count: int) -> None:
        """Let cycles pass."""
        if count:
            await ClockCycles(self.dut.aclk, count)

    async def until(self, condition, what: str, patience: int = PATIENCE) -> None:
        """Wait for ``condition()``."""
        for _ in range(patience):
            if condition():
                return
            await RisingEdge(self.dut.aclk)
        raise AssertionError(f"{what} did not come in {patience} cycles: {await self.status()}")

    # Registers.
    async def write(self, name: str, value: int, expected: AxiResp = AxiResp.OKAY) -> None:
        """Write a register by name."""
        answer = await self._patiently(self.axil.write(REGISTERS[name].offset, value.to_bytes(4, "little")))
        assert answer.resp == expected, f"writing {name}: {answer.resp!r}"

    async def read(self, name: str) -> int:
        """Read a register by name."""
        answer = await self._patiently(self.axil.read(REGISTERS[name].offset, 4))
        assert answer.resp == AxiResp.OKAY, f"reading {name}: {answer.resp!r}"
        return int.from_bytes(answer.data, "little")

    async def write_all(self, values: Mapping[str, int]) -> None:
        """Write registers by name."""
        for name, value in values.items():
            await self.write(name, value)

    async def command(self, **fields: int) -> None:
        """Write CONTROL."""
        await self.write("CONTROL", REGISTERS["CONTROL"].encode(**fields))

    async def status(self) -> dict[str, int]:
        """The fields of STATUS."""
        return REGISTERS["STATUS"].decode(await self.read("STATUS"))

    async def counters(self) -> dict[str, int]:
        """A snapshot of all counters."""
        await self.command(snapshot=1)
        names = {c.name: (f"{c.name.upper()}_LO", f"{c.name.upper()}_HI") for c in COUNTERS}
        return {name: await self.read(low) | await self.read(high) << 32 for name, (low, high) in names.items()}

    # A run.
    async def configure(
        self,
        model: QuantisedModel,
        setting: Setting,
        base: int = 0,
        sections: Sequence[Section] = (),
        **overrides: int,
    ) -> None:
        """Put the images of ``model`` and of ``sections`` into memory and write the registers; ``overrides`` last."""
        image = pack(model, CONFIG)
        self.memory.bytes[base : base + image.size] = image
        self._model, self.setting = model, setting
        header = read_header(image)
        self.layout = check_image(header, CONFIG)
        values = register_values(CONFIG, self.layout, header.image_id, setting)
        self.end = self.layout.base + self.layout.total_bytes
        if sections:
            hidden = HiddenImage(CONFIG, model.shape).pack(sections, header.image_id)
            address = hidden_address(self.layout)
            self.end = address + len(hidden)
            self.memory.bytes[address : self.end] = np.frombuffer(hidden, np.uint8)
            values |= hidden_values(hidden, self.layout)
        await self.write_all(values | overrides)

    async def start(self) -> None:
        """Start, and expect to run."""
        await self.command(start=1)
        await self.cycles(8)
        status = await self.status()
        assert (status["running"], status["error"]) == (1, 0), status
        self.observer.read_checker.window = (self.layout.base, self.end - 1)

    async def stop(self) -> None:
        """Stop, and wait until nothing is outstanding."""
        await self.command(stop=1)
        for _ in range(200):
            status = await self.status()
            if status["quiescent"]:
                break
            await self.cycles(20)
        assert [status[name] for name in ("quiescent", "running", "halted", "error")] == [1, 0, 0, 0], status
        # What is left of a message half taken, and the begin of an answer half sent, are void (docs/interfaces.md §2).
        for stream in (self.source, self.sink):
            stream.assert_reset()
            stream.assert_reset(False)
            stream.clear()

    async def expect_error(self, code: ErrorCode, detail: int | None = None) -> dict[str, int]:
        """Wait for the interrupt, check STATUS, and return where the error was."""
        await self.until(lambda: self.dut.irq.value, f"the interrupt of {code.name}")
        status = await self.status()
        assert status["error"] == code, f"{ErrorCode(status['error']).name}, expected {code.name}"
        found = await self.read("ERROR_DETAIL")
        assert detail is None or found == detail, f"detail {found}, expected {detail}"
        await self.write("IRQ_STATUS", REGISTERS["IRQ_STATUS"].encode(error=1))
        await self.cycles(4)
        assert not self.dut.irq.value, "irq after it was cleared"
        return REGISTERS["ERROR_INFO"].decode(await self.read("ERROR_INFO"))

    # Messages.
    async def send(self, message: bytes) -> None:
        """Queue a message."""
        await self.source.send(message)

    async def result(self) -> Result:
        """The next answer."""
        frame = await self._patiently(self.sink.recv())
        return Result.decode(bytes(frame.tdata), CONFIG.bus_bytes, self.model.shape.d_model)

    async def layer(
        self,
        layer: int,
        sequence: int,
        token: int,
        *,
        hints: Sequence[Hint] = (),
        routing: Routing | None = None,
        word: int = 0,
    ) -> LayerResult:
        """Random activations through one layer, compared with the golden model; returns the golden result."""
        model = self.model
        x16, exponent = self.activations()
        golden = moe_layer(model.layers[layer], model.shape, x16, exponent, routing)
        for hint in hints:
            await self.send(hint.encode(CONFIG.bus_bytes))
        given = {} if routing is None else {"ids": tuple(routing.ids), "weights": tuple(routing.weights)}
        message = Activations(layer, exponent, sequence, token, x16, word=word, **given)
        await self.send(message.encode(CONFIG.bus_bytes))
        answer = await self.result()
        assert (answer.layer, answer.exponent, answer.sequence, answer.token) == (layer, exponent, sequence, token)
        assert list(answer.ids) == list(golden.ids), f"experts {answer.ids}, the router chose {golden.ids}"
        assert list(answer.weights) == list(golden.weights), f"weights {answer.weights}, expected {golden.weights}"
        wrong = np.flatnonzero(answer.y != golden.y)
        assert not wrong.size, f"y differs in {wrong.size} of {golden.y.size}, first at {wrong[0]}"
        return golden

    async def state(self, layer: int, sequence: int, token: int) -> None:
        """A random state before the attention of a layer."""
        x16, exponent = self.activations()
        await self.send(State(layer, exponent, sequence, token, x16).encode(CONFIG.bus_bytes))

    def message(self, layer: int, sequence: int, token: int) -> bytes:
        """Random activations as a message of kind 1."""
        x16, exponent = self.activations()
        return Activations(layer, exponent, sequence, token, x16).encode(CONFIG.bus_bytes)

    def activations(self) -> tuple[NDArray[np.int64], int]:
        """A random token."""
        return random_activations(self.np_rng, self.model.shape.d_model)

    async def _patiently(self, awaitable):
        return await with_timeout(awaitable, PATIENCE * PERIOD_NS, "ns")
