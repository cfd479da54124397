"""The integer-exact MoE layer of docs/numerics.md §3 and §4: the specification the hardware equals bit for bit.

Activations are [..., d] and exponents [...], so that the same functions compute one token or a batch. Matrix products run in
floating-point BLAS on small integers, in a type wide enough that every partial sum is exact whatever the order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from stmoe.model.numerics import (
    ONE_WEIGHT,
    ROUTED_SCALE_FRAC,
    ROUTER_SHIFT_MAX,
    SCALE_BITS,
    SHIFT_MAX,
    Ints,
    clamp127,
    rsr,
    saturate,
    shift,
    silu,
    to_x8,
)
from stmoe.model.router import Routing, route
from stmoe.model.shape import ModelShape

Int8s = NDArray[np.int8]

#: c_j = rsr(w_j·mo, 14) is below 2^21; y is summed in 48 bits (§4).
FACTOR_BITS = 21
SUM_BITS = 48


def _exact_float(terms: int) -> type:
    """The narrowest float type in which every partial sum of ``terms`` products of two int8 values is an exact integer."""
    return np.float32 if terms * 127 * 127 <= 1 << 24 else np.float64


@dataclass(frozen=True, eq=False)
class QuantisedExpert:
    """One expert, or a slice of its hidden units.

    Attributes
    ----------
    Wg, Wu : gate and up rows [f, d], int8.
    Wd : down columns [d, f], int8; column f has the scale of unit f.
    mg, sg, mu, su, mh, sh : the scales of each hidden unit [f], int64.
    mo, so : the scale of the expert's sum.
    """

    Wg: Int8s
    Wu: Int8s
    Wd: Int8s
    mg: Ints
    sg: Ints
    mu: Ints
    su: Ints
    mh: Ints
    sh: Ints
    mo: int
    so: int

    @property
    def units(self) -> int:
        """Hidden units."""
        return len(self.Wg)

    def chunk(self, index: int, chunk_units: int) -> "QuantisedExpert":
        """Units ``index``·F … of the expert, an expert of its own: what one chunk holds."""
        return self.select(slice(index * chunk_units, (index + 1) * chunk_units))

    def select(self, units) -> "QuantisedExpert":
        """The hidden units ``units`` (a slice or an array of numbers), in that order."""
        rows = {name: getattr(self, name)[units] for name in ("Wg", "Wu", "mg", "sg", "mu", "su", "mh", "sh")}
        return replace(self, Wd=self.Wd[:, units], **rows)

    @cached_property
    def _gate_up(self) -> NDArray[np.floating]:
        return np.concatenate([self.Wg, self.Wu]).T.astype(_exact_float(self.Wg.shape[1]))

    @cached_property
    def _down(self) -> NDArray[np.floating]:
        return self.Wd.T.astype(_exact_float(self.units))


@dataclass(frozen=True, eq=False)
class QuantisedLayer:
    """One MoE layer: router [E, d] int16 with one scale (mr, sr), and its experts, routed ones first, then shared ones."""

    router: NDArray[np.int16]
    mr: int
    sr: int
    experts: Sequence[QuantisedExpert]


@dataclass(frozen=True, eq=False)
class QuantisedModel:
    """All MoE layers of a model, in integers."""

    shape: ModelShape
    layers: Sequence[QuantisedLayer]

    @cached_property
    def image_id(self) -> int:
        """CRC-32C of the dimensions and weights, never 0 (docs/interfaces.md §1)."""
        value = crc32c(np.array(dimensions(self.shape), dtype="<u4").tobytes())
        for layer in self.layers:
            value = crc32c(np.array([layer.mr, layer.sr], dtype="<u4").tobytes(), value)
            value = crc32c(layer.router.astype("<i2").tobytes(), value)
            for expert in layer.experts:
                for field in fields(expert):
                    item = getattr(expert, field.name)
                    kind = "i1" if field.name.startswith("W") else "<u2"
                    value = crc32c(np.asarray(item).astype(kind).tobytes(), value)
        return value or 1


@dataclass(frozen=True, eq=False)
class LayerResult:
    """What the engine answers for one token and layer (for a batch, every array has a leading axis).

    Attributes
    ----------
    ids, weights : the slots: routed experts in rank order, then the shared ones with weight 2^15.
    y : the layer's output, Q15.16, [d].
    h8_saturations : hidden values that the clamp of h8 changed, over all slots.
    """

    ids: Ints
    weights: Ints
    y: Ints
    h8_saturations: Ints | int


def dimensions(shape: ModelShape) -> list[int]:
    """The eight numbers of a shape in the order of the image header."""
    return [
        shape.experts,
        shape.top_k,
        shape.layers,
        shape.d_model,
        shape.d_ff,
        shape.shared_experts,
        int(shape.renormalise),
        round(shape.routed_scale * (1 << ROUTED_SCALE_FRAC)),
    ]


def expert_accumulate(expert: QuantisedExpert, x8, exponent) -> tuple[Ints, Ints]:
    """The expert's int32 sums acc [..., d] for x8 [..., d], and the h8 saturations of each token [...]."""
    e = np.asarray(exponent)[..., None]
    x = np.asarray(x8)
    g32, u32 = np.split((x.astype(expert._gate_up.dtype) @ expert._gate_up).astype(np.int64), 2, axis=-1)
    g = saturate(rsr(g32 * expert.mg, shift(expert.sg, e, SHIFT_MAX)), 16)
    u = saturate(rsr(u32 * expert.mu, shift(expert.su, e, SHIFT_MAX)), 16)
    wide = rsr(silu(g) * u * expert.mh, np.maximum(expert.sh, 1))
    h8 = clamp127(wide)
    acc = (h8.astype(expert._down.dtype) @ expert._down).astype(np.int64)
    return acc, np.count_nonzero(wide != h8, axis=-1)


def chunk_accumulate(expert: QuantisedExpert, chunk: int, chunk_units: int, x8, exponent) -> tuple[Ints, Ints]:
    """What chunk ``chunk`` adds to the expert's sums, and its h8 saturations."""
    return expert_accumulate(expert.chunk(chunk, chunk_units), x8, exponent)


def contribution(acc: Ints, weight, mo: int, so: int) -> Ints:
    """One expert's share of y, rounded once: what ``combine`` adds for a slot. ``weight`` is Q.15, [...]."""
    c = rsr(np.asarray(weight)[..., None] * mo, 14)
    return rsr(acc * c, so + 1)


def combine(contributions: Sequence[Ints]) -> Ints:
    """y from the contributions of all slots: an exact sum, saturated to 32 bits once."""
    return saturate(np.sum(contributions, axis=0), 32)


def moe_layer(
    layer: QuantisedLayer, shape: ModelShape, x16, exponent: int, routing: Routing | None = None
) -> LayerResult:
    """The whole layer for one token x16 [d]; ``routing`` from outside replaces the router's."""
    routing = routing or route(layer.router, layer.mr, layer.sr, shape, x16, exponent)
    ids, weights = with_shared(shape, routing)
    x8 = to_x8(x16)
    shares, saturations = [], 0
    for e, weight in zip(ids, weights, strict=True):
        expert = layer.experts[e]
        acc, clamped = expert_accumulate(expert, x8, exponent)
        shares.append(contribution(acc, weight, expert.mo, expert.so))
        saturations += int(clamped)
    return LayerResult(ids, weights, combine(shares), saturations)


def moe_layer_batch(layer: QuantisedLayer, shape: ModelShape, x16: Ints, exponents: Ints) -> LayerResult:
    """``moe_layer`` of each token of x16 [T, d], an expert at a time over the tokens that chose it."""
    ids, weights = with_shared(shape, route(layer.router, layer.mr, layer.sr, shape, x16, exponents))
    x8, y48 = to_x8(x16), np.zeros(x16.shape, np.int64)
    saturations = np.zeros(len(x16), np.int64)
    for e in np.unique(ids):
        tokens, slots = np.nonzero(ids == e)
        expert = layer.experts[e]
        acc, clamped = expert_accumulate(expert, x8[tokens], exponents[tokens])
        y48[tokens] += contribution(acc, weights[tokens, slots], expert.mo, expert.so)
        saturations[tokens] += clamped
    return LayerResult(ids, weights, saturate(y48, 32), saturations)


def check_layer(shape: ModelShape, index: int, layer: QuantisedLayer) -> None:
    """Raise ``ValueError`` naming layer, expert and field if an integer of ``layer`` could leave its range (§1, §4)."""
    if not (0 <= layer.mr < 1 << SCALE_BITS and 0 <= layer.sr <= ROUTER_SHIFT_MAX):
        raise ValueError(f"layer {index}, router: scale ({layer.mr}, {layer.sr}) is out of range")
    for e, expert in enumerate(layer.experts):
        where = f"layer {index}, expert {e}"
        for name in ("Wg", "Wu", "Wd"):
            if np.any(getattr(expert, name) == -128):
                raise ValueError(f"{where}, {name}: holds -128")
        for name in "guho":
            m, s = np.asarray(getattr(expert, "m" + name)), np.asarray(getattr(expert, "s" + name))
            if np.any((m < 0) | (m >= 1 << SCALE_BITS)) or np.any((s < 0) | (s > SHIFT_MAX)):
                raise ValueError(f"{where}, m{name}, s{name}: scale is out of range")
        if shape.slots * shape.d_ff * 127**2 << FACTOR_BITS > 1 << (SUM_BITS + expert.so):
            raise ValueError(f"{where}, so = {expert.so}: {shape.slots} such slots could wrap a sum of {SUM_BITS} bits")


def with_shared(shape: ModelShape, routing: Routing) -> tuple[Ints, Ints]:
    """Slot ids and weights: the routed experts, then the shared ones with weight 2^15. Refuses what no router can send."""
    ids, weights = np.asarray(routing.ids), np.asarray(routing.weights)
    if not 1 <= ids.shape[-1] <= shape.top_k:
        raise ValueError(f"routing lists {ids.shape[-1]} experts: must be 1 to top_k = {shape.top_k}")
    if ids.min() < 0 or ids.max() >= shape.experts:
        raise ValueError(f"routing names expert {ids.min()}…{ids.max()}: must be 0…{shape.experts - 1}")
    if shape.shared_experts == 0:
        return ids, weights
    rows = (*ids.shape[:-1], shape.shared_experts)
    shared = np.broadcast_to(np.arange(shape.experts, shape.experts_total), rows)
    return (
        np.concatenate([ids, shared], axis=-1),
        np.concatenate([weights, np.full(rows, ONE_WEIGHT)], axis=-1),
    )
