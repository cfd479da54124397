"""A right shift of which few bits are wanted: what falls off above them is one flag, so the shifter narrows from step to step."""

from amaranth import Module, Mux, Shape, Signal


def shift_into(m: Module, value, amount, bits: int, name: str, *, unit: int = 1) -> tuple[Signal, Signal]:
    """``value >> amount·unit`` in ``bits`` bits, and whether it fits in them; combinational.

    Signed or unsigned as ``value`` is. If it does not fit, the bits mean nothing. The largest step comes first: behind a step no more
    bits are kept than the smaller ones can still bring down, so that 63 bits to 15 take a third of a whole shifter.

    Parameters
    ----------
    value : at least one bit.
    amount : unsigned, any width.
    bits : of the result.
    name : prefix of the signals made.
    unit : what one of ``amount`` shifts by.
    """
    signed = value.shape().signed
    row = value
    sign = row[-1] if signed else 0
    lost = []
    for i in reversed(range(len(amount))):
        step = unit << i
        width = bits + step - unit
        # One bit more than any slice takes, so that every slice has its sign to be extended by.
        shape = Shape(max(len(row), step + width) + 1, signed)
        whole = Signal(shape, name=f"{name}_from_{step}")
        shifted = Signal(Shape(width, signed), name=f"{name}_by_{step}")
        m.d.comb += [whole.eq(row), shifted.eq(Mux(amount[i], whole[step:][:width], whole[:width]))]
        rest = [_counts(whole[width:], sign), _counts(whole[step + width :], sign)]
        lost.append(Mux(amount[i], rest[1], rest[0]))
        row = shifted
    kept, fits = Signal(Shape(bits, signed), name=f"{name}_kept"), Signal(name=f"{name}_fits")
    m.d.comb += kept.eq(row)
    if signed:
        lost.append(kept[-1] != sign)
    missing = Signal(len(lost), name=f"{name}_lost")
    m.d.comb += [*(bit.eq(flag) for bit, flag in zip(missing, lost, strict=True)), fits.eq(~missing.any())]
    return kept, fits


def _counts(bits, sign):
    """Whether a bit differs from the sign."""
    return (bits ^ sign.replicate(len(bits))).any() if not isinstance(sign, int) else bits.any()
