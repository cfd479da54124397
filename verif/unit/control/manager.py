"""An AXI4-Lite manager for testbenches of the Amaranth simulator: address before data or after it, and late to take answers."""

import random


class AxiLiteManager:
    """One access at a time. ``stall`` is the chance of an idle cycle between the channels of a write and before an answer."""

    def __init__(self, ctx, axi, rng: random.Random, stall: float = 0.3):
        self.ctx, self.axi, self.rng, self.stall = ctx, axi, rng, stall

    async def write(self, address: int, data: int, strobe: int = 0xF) -> int:
        """Write; returns the response."""
        ctx, aw, w, b = self.ctx, self.axi.aw, self.axi.w, self.axi.b
        ctx.set(aw.awaddr, address)
        ctx.set(w.wdata, data)
        ctx.set(w.wstrb, strobe)
        # Each channel is offered on its own, or both together; the next one only when the first was taken.
        steps = self.rng.choice(([aw, w], [w, aw], [None]))
        for step in steps:
            await self._stall()
            if step is aw:
                await self._offer(aw.awvalid, aw.awready)
            elif step is w:
                await self._offer(w.wvalid, w.wready)
            else:
                await self._offer_both()
        (response,) = await self._answer(b.bvalid, b.bready, b.bresp)
        return response

    async def read(self, address: int) -> tuple[int, int]:
        """Read; returns data and response."""
        ar, r = self.axi.ar, self.axi.r
        await self._stall()
        self.ctx.set(ar.araddr, address)
        await self._offer(ar.arvalid, ar.arready)
        data, response = await self._answer(r.rvalid, r.rready, r.rdata, r.rresp)
        return data, response

    async def _stall(self) -> None:
        while self.rng.random() < self.stall:
            await self.ctx.tick()

    async def _offer(self, valid, ready) -> None:
        self.ctx.set(valid, 1)
        await self.ctx.tick().until(ready)
        self.ctx.set(valid, 0)

    async def _offer_both(self) -> None:
        aw, w = self.axi.aw, self.axi.w
        self.ctx.set(aw.awvalid, 1)
        self.ctx.set(w.wvalid, 1)
        waiting = True
        while waiting:
            *_, address_taken, data_taken = await self.ctx.tick().sample(aw.awready, w.wready)
            if address_taken:
                self.ctx.set(aw.awvalid, 0)
            if data_taken:
                self.ctx.set(w.wvalid, 0)
            waiting = self.ctx.get(aw.awvalid) or self.ctx.get(w.wvalid)

    async def _answer(self, valid, ready, *signals):
        await self._stall()
        self.ctx.set(ready, 1)
        answer = await self.ctx.tick().sample(*signals).until(valid)
        self.ctx.set(ready, 0)
        return answer
