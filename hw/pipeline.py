"""Registers in a row: what keeps the tags of a fixed-latency pipeline beside its data, and who asks from far."""

from amaranth import Const, Module, Signal


def delayed(m: Module, signal, cycles: int, name: str, *, reset_less: bool = True, valid=None) -> list:
    """``signal`` after 0 … ``cycles`` clock edges, as a list; stage 0 is ``signal`` itself.

    Flags that start something need ``reset_less=False``; data that such a flag qualifies does not. With ``valid``, the line of that
    flag, the first stage takes only what is valid, and the others follow it: an idle line does not toggle, and its end holds the last
    item until the next. That is one clock enable to route, in place of one a stage.
    """
    line = [signal]
    for i in range(1, cycles + 1):
        stage = Signal(signal.shape(), name=f"{name}_{i}", reset_less=reset_less)
        with m.If(Const(1) if valid is None or i > 1 else valid[0]):
            m.d.sync += stage.eq(line[-1])
        line.append(stage)
    return line


def heard(m: Module, asks, name: str) -> Signal:
    """That an item is offered, a cycle late: high until the cycle of ``ready``, in which the item may be taken.

    For a stream from far on which much hangs: the item has stood still since, so that ``valid`` need not be looked at again.
    """
    waiting = Signal(name=name)
    m.d.sync += waiting.eq(asks.valid & ~asks.ready)
    return waiting
