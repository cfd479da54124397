"""A memory behind AXI4 read and write ports, for the Amaranth simulator; it feeds the protocol checkers while it runs."""

import random
from collections import deque
from collections.abc import Sequence

from stmoe.hw.memory.axi import Resp
from stmoe.verif.axi_checker import AxiReadChecker, AxiWriteChecker

AR = ("arid", "araddr", "arlen", "arsize", "arburst", "arcache", "arprot", "arvalid", "arready")
R = ("rid", "rdata", "rresp", "rlast", "rvalid", "rready")
AW = tuple(name.replace("ar", "aw", 1) for name in AR)
W = ("wdata", "wstrb", "wlast", "wvalid", "wready")
B = ("bid", "bresp", "bvalid", "bready")


class ReadSlave:
    """Answers reads in order.

    Parameters
    ----------
    axi : ``AxiRead`` port of the device under test.
    memory : its contents from address 0.
    checker : sampled every cycle.
    latency : cycles from AR to the first beat at the soonest, at least 1; drawn from this range for each burst.
    ar_stall, r_gap : probability that a cycle refuses AR, or sends no beat though one is due.
    bad : addresses of beats that answer SLVERR.
    """

    def __init__(
        self,
        axi,
        memory: bytes | bytearray,
        checker: AxiReadChecker,
        rng: random.Random,
        latency: Sequence[int] = (1, 20),
        ar_stall: float = 0.3,
        r_gap: float = 0.3,
        bad: frozenset[int] = frozenset(),
    ):
        self.axi, self.memory, self.checker, self.rng = axi, memory, checker, rng
        self.latency, self.ar_stall, self.r_gap, self.bad = latency, ar_stall, r_gap, bad
        self.cycle = 0
        #: (cycle of acceptance, address, beats) of every burst.
        self.bursts: list[tuple[int, int, int]] = []
        #: Cycle of every beat.
        self.beat_cycles: list[int] = []

    async def run(self, ctx) -> None:
        """Endless: add it as a background testbench."""
        ar, r = self.axi.ar, self.axi.r
        size = self.checker.data_bytes
        signals = [getattr(ar, name) for name in AR] + [getattr(r, name) for name in R]
        due: deque[tuple[int, int, bool]] = deque()  # (cycle, address, last) of every beat owed
        offered = False
        driven: dict = {}

        def drive(signal, value: int) -> None:
            if driven.get(signal.name) != value:  # setting is slow
                driven[signal.name] = value
                ctx.set(signal, value)

        def offer() -> bool:
            """Drive the slave's side for the coming cycle; whether it offers a beat."""
            drive(ar.arready, self.rng.random() >= self.ar_stall)
            if not offered and not (due and due[0][0] <= self.cycle and self.rng.random() >= self.r_gap):
                drive(r.rvalid, 0)
                return False
            _, address, last = due[0]
            drive(r.rdata, int.from_bytes(self.memory[address : address + size], "little"))
            drive(r.rresp, Resp.SLVERR if address in self.bad else Resp.OKAY)
            drive(r.rlast, last)
            drive(r.rvalid, 1)
            return True

        offered = offer()
        async for _, _, *values in ctx.tick().sample(*signals):
            s = dict(zip(AR + R, values, strict=True))
            self.checker.sample(s)
            if s["rvalid"] and s["rready"]:
                self.beat_cycles.append(self.cycle)
                due.popleft()
                offered = False
            if s["arvalid"] and s["arready"]:
                beats = s["arlen"] + 1
                self.bursts.append((self.cycle, s["araddr"], beats))
                start = self.cycle + self.rng.randint(self.latency[0], self.latency[-1])
                due.extend((start, s["araddr"] + i * size, i == beats - 1) for i in range(beats))
            self.cycle += 1
            offered = offer()


class WriteSlave:
    """Takes writes into ``memory``; ``bad``: addresses of bursts that answer SLVERR."""

    def __init__(
        self,
        axi,
        memory: bytearray,
        checker: AxiWriteChecker,
        rng: random.Random,
        stall: float = 0.3,
        bad: frozenset[int] = frozenset(),
    ):
        self.axi, self.memory, self.checker, self.rng, self.stall, self.bad = axi, memory, checker, rng, stall, bad
        self.bursts: list[tuple[int, int]] = []

    async def run(self, ctx) -> None:
        """Endless: add it as a background testbench."""
        aw, w, b = self.axi.aw, self.axi.w, self.axi.b
        size = self.checker.data_bytes
        signals = [getattr(aw, n) for n in AW] + [getattr(w, n) for n in W] + [getattr(b, n) for n in B]
        addresses: deque[int] = deque()
        data: deque[list[tuple[int, int]]] = deque([[]])
        answers: deque[Resp] = deque()
        offered = False
        async for _, _, *values in ctx.tick().sample(*signals):
            s = dict(zip(AW + W + B, values, strict=True))
            self.checker.sample(s)
            if s["bvalid"] and s["bready"]:
                answers.popleft()
                offered = False
            if s["awvalid"] and s["awready"]:
                addresses.append(s["awaddr"])
                self.bursts.append((s["awaddr"], s["awlen"] + 1))
            if s["wvalid"] and s["wready"]:
                data[-1].append((s["wdata"], s["wstrb"]))
                if s["wlast"]:
                    data.append([])
            if addresses and len(data) > 1:
                address = addresses.popleft()
                answers.append(Resp.SLVERR if address in self.bad else Resp.OKAY)
                for i, (word, strobe) in enumerate(data.popleft()):
                    for j, byte in enumerate(word.to_bytes(size, "little")):
                        if strobe >> j & 1:
                            self.memory[address + i * size + j] = byte
            ctx.set(aw.awready, self.rng.random() >= self.stall)
            ctx.set(w.wready, self.rng.random() >= self.stall)
            if not offered and answers and self.rng.random() >= self.stall:
                ctx.set(b.bresp, answers[0])
                offered = True
            ctx.set(b.bvalid, offered)
