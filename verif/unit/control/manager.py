"""An AXI4-Lite manager for testbenches of the Amaranth simulator: address before data or after it, and late to take answers."""

import random


class AxiLiteManager:
    """One access at a time. ``stall`` is the chance of an idle cycle between the channels of a write and before an answer."""

    def __init__(self, ctx, axi, rng: random.Random, stall: float = 0.3):
        self.ctx, self.axi, self.rng, self.stall = ctx, axi, rng, stall

    async def write(self, address: int, data: int, strobe: int = 0xF) -> int:
        """Write; returns the response."""
        ctx, aw, w = self.ctx, self.axi.aw, self.axi.w
        ctx.set(aw.addr, address)
        ctx.set(w.data, data)
        ctx.set(w.strb, strobe)
        channels = [[aw], [w]]
        self.rng.shuffle(channels)
        if self.rng.random() < 0.3:
            channels = [[aw, w]]
        for together in channels:
            await self._stall()
            pending = list(together)
            for channel in pending:
                ctx.set(channel.valid, 1)
            while pending:
                *_, aw_ready, w_ready = await ctx.tick().sample(aw.ready, w.ready)
                for channel, ready in ((aw, aw_ready), (w, w_ready)):
                    if ready and channel in pending:
                        ctx.set(channel.valid, 0)
                        pending.remove(channel)
        (response,) = await self._answer(self.axi.b, self.axi.b.resp)
        return response

    async def read(self, address: int) -> tuple[int, int]:
        """Read; returns data and response."""
        ctx, ar, r = self.ctx, self.axi.ar, self.axi.r
        await self._stall()
        ctx.set(ar.addr, address)
        ctx.set(ar.valid, 1)
        await ctx.tick().until(ar.ready)
        ctx.set(ar.valid, 0)
        data, response = await self._answer(r, r.data, r.resp)
        return data, response

    async def _stall(self) -> None:
        while self.rng.random() < self.stall:
            await self.ctx.tick()

    async def _answer(self, channel, *signals):
        await self._stall()
        self.ctx.set(channel.ready, 1)
        answer = await self.ctx.tick().sample(*signals).until(channel.valid)
        self.ctx.set(channel.ready, 0)
        return answer
