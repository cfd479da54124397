"""The expert image of docs/interfaces.md §1: a model's MoE weights as the bytes the engine reads from DRAM.

``pack`` writes them, ``unpack`` reads them back and believes nothing: sizes, versions, checksums and ranges are verified, and
whatever is wrong raises one ``ValueError`` that names the place. ``ImageLayout`` says where things lie.
"""

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stmoe.model.config import CHUNK_HEAD_BYTES, UNIT_SCALE_BYTES, EngineConfig
from stmoe.model.crc import chunk_crc, chunk_seed, crc32c, router_seed
from stmoe.model.moe import QuantisedExpert, QuantisedLayer, QuantisedModel, check_layer, dimensions
from stmoe.model.numerics import ROUTED_SCALE_FRAC, SCALE_BITS, SHIFT_BITS
from stmoe.model.shape import ModelShape

MAGIC = b"STMOEIMG"
VERSION = 1
ALIGNMENT = 4096
HEADER_BYTES = 4096

_HEADER = struct.Struct("<8s18I3Q")
#: Names of the header's numbers after magic, version and image id, in order.
SHAPE_FIELDS = (
    "experts",
    "top_k",
    "layers",
    "d_model",
    "d_ff",
    "shared_experts",
    "renormalise",
    "routed_scale",
)
BUILD_FIELDS = (
    "lanes",
    "bus_bytes",
    "chunk_units",
    "group_units",
    "meta_bytes",
    "chunk_bytes",
    "router_bytes",
    "chunks",
)
PLACE_FIELDS = ("router_offset", "expert_offset", "total_bytes")

#: Bit of each field of a unit's 64-bit row of scales.
_SCALE_BITS = {name: i * SCALE_BITS for i, name in enumerate(("mg", "mu", "mh"))}
_SHIFT_BITS = {name: 3 * SCALE_BITS + i * SHIFT_BITS for i, name in enumerate(("sg", "su", "sh"))}

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class ImageLayout:
    """Where a model of ``shape`` lies in an image for ``config`` that starts at ``base``."""

    config: EngineConfig
    shape: ModelShape
    base: int = 0

    def __post_init__(self):
        self.config.check_model(self.shape)

    @property
    def chunks(self) -> int:
        """Chunks of one expert."""
        return self.config.chunks(self.shape)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one chunk."""
        return self.config.chunk_bytes(self.shape.d_model)

    @property
    def router_bytes(self) -> int:
        """Bytes of one layer's router image."""
        return self.config.router_bytes(self.shape)

    @property
    def router_offset(self) -> int:
        """First byte of the router images, from the start of the image."""
        return HEADER_BYTES

    @property
    def expert_offset(self) -> int:
        """First byte of the expert images, from the start of the image."""
        end = self.router_offset + self.shape.layers * self.router_bytes
        return -(-end // ALIGNMENT) * ALIGNMENT

    @property
    def total_bytes(self) -> int:
        """Bytes of the whole image."""
        return self.expert_offset + self.shape.layers * self.shape.experts_total * self.chunks * self.chunk_bytes

    def router_address(self, layer: int) -> int:
        """Address of layer ``layer``'s router image."""
        return self.base + self.router_offset + layer * self.router_bytes

    def chunk_address(self, layer: int, expert: int, chunk: int = 0) -> int:
        """Address of a chunk of an expert."""
        number = (layer * self.shape.experts_total + expert) * self.chunks + chunk
        return self.base + self.expert_offset + number * self.chunk_bytes

    def numbers(self) -> dict[str, int]:
        """The header's numbers by name, image id apart."""
        build = (getattr(self if name in PROPERTIES else self.config, name) for name in BUILD_FIELDS)
        places = (getattr(self, name) for name in PLACE_FIELDS)
        return dict(
            zip(SHAPE_FIELDS + BUILD_FIELDS + PLACE_FIELDS, [*dimensions(self.shape), *build, *places], strict=True)
        )


#: Header fields that depend on build and model both.
PROPERTIES = ("chunk_bytes", "router_bytes", "chunks")


@dataclass(frozen=True)
class ImageHeader:
    """What the header says: the image id, and the numbers of ``ImageLayout.numbers``."""

    image_id: int
    numbers: dict[str, int]

    @property
    def shape(self) -> ModelShape:
        """The model's shape."""
        values = {name: self.numbers[name] for name in SHAPE_FIELDS[:6]}
        return ModelShape(
            **values,
            renormalise=bool(self.numbers["renormalise"]),
            routed_scale=self.numbers["routed_scale"] / (1 << ROUTED_SCALE_FRAC),
        )

    def to_bytes(self) -> bytes:
        """The 4,096 bytes of the header."""
        head = _HEADER.pack(MAGIC, VERSION, self.image_id, *self.numbers.values()).ljust(HEADER_BYTES - 4, b"\0")
        return head + crc32c(head).to_bytes(4, "little")


def read_header(image: Bytes | bytes) -> ImageHeader:
    """The header of ``image``; refuses what is no image, another version, damaged or truncated."""
    head = bytes(image[:HEADER_BYTES])
    if len(head) < HEADER_BYTES:
        raise ValueError(f"image: {len(head)} bytes, truncated within the header of {HEADER_BYTES}")
    magic, version, image_id, *numbers = _HEADER.unpack_from(head)
    if magic != MAGIC:
        raise ValueError(f"image: starts with {magic!r}, not {MAGIC!r}: no expert image")
    if version != VERSION:
        raise ValueError(f"image: version {version}, expected {VERSION}")
    stored, computed = int.from_bytes(head[-4:], "little"), crc32c(head[:-4])
    if stored != computed:
        raise ValueError(f"image: header CRC {stored:#010x}, computed {computed:#010x}")
    return ImageHeader(image_id, dict(zip(SHAPE_FIELDS + BUILD_FIELDS + PLACE_FIELDS, numbers, strict=True)))


def check_image(header: ImageHeader, config: EngineConfig) -> ImageLayout:
    """The layout of an image on the build ``config``; refuses an image made for another, naming field and both values."""
    layout = ImageLayout(config, header.shape)
    for name, expected in layout.numbers().items():
        found = header.numbers[name]
        if found != expected:
            raise ValueError(f"image: made for {name} = {found}, but the build {config.name!r} has {name} = {expected}")
    return layout


def pack(model: QuantisedModel, config: EngineConfig) -> Bytes:
    """The image of ``model`` for the build ``config``."""
    layout = ImageLayout(config, model.shape)
    image = np.zeros(layout.total_bytes, np.uint8)
    header = ImageHeader(model.image_id, layout.numbers())
    image[:HEADER_BYTES] = np.frombuffer(header.to_bytes(), np.uint8)
    routers, chunks = _views(image, layout)
    for i, layer in enumerate(model.layers):
        check_layer(model.shape, i, layer)
        routers[i, 4:6].view("<u2")[:] = layer.mr
        routers[i, 6] = layer.sr
        routers[i, config.router_head_bytes :] = layer.router.astype("<i2").reshape(-1).view(np.uint8)
        for e, expert in enumerate(layer.experts):
            chunks[i, e] = pack_expert(expert, config)
    for block, start in _blocks(layout, model.image_id, routers, chunks):
        block[:4] = np.frombuffer(chunk_crc(start, block.tobytes()).to_bytes(4, "little"), np.uint8)
    return image


def unpack(image: Bytes | bytes, config: EngineConfig) -> tuple[QuantisedModel, ImageHeader]:
    """The model in ``image`` and its header; every byte is verified."""
    header = read_header(image)
    layout = check_image(header, config)
    if len(image) != layout.total_bytes:
        raise ValueError(f"image: {len(image)} bytes, expected {layout.total_bytes}")
    routers, chunks = _views(np.frombuffer(image, np.uint8), layout)
    for number, (block, start) in enumerate(_blocks(layout, header.image_id, routers, chunks)):
        stored, computed = int.from_bytes(bytes(block[:4]), "little"), chunk_crc(start, block.tobytes())
        if stored != computed:
            raise ValueError(f"image: {_place(layout, number)}: CRC {stored:#010x}, computed {computed:#010x}")
    layers = []
    for i in range(header.shape.layers):
        weights = routers[i, config.router_head_bytes :].view("<i2").reshape(header.shape.experts, -1)
        experts = tuple(unpack_expert(chunks[i, e], config) for e in range(header.shape.experts_total))
        for e, expert in enumerate(experts):
            if not np.array_equal(pack_expert(expert, config)[:, 4:], chunks[i, e, :, 4:]):
                raise ValueError(
                    f"image: layer {i}, expert {e}: chunks differ in scale, or reserved bytes are not zero"
                )
        mr = int(routers[i, 4:6].view("<u2")[0])
        layers.append(QuantisedLayer(weights.astype(np.int16), mr, int(routers[i, 6]), experts))
        check_layer(header.shape, i, layers[-1])
    model = QuantisedModel(header.shape, tuple(layers))
    if model.image_id != header.image_id:
        raise ValueError(f"image: id {header.image_id:#010x}, but the weights give {model.image_id:#010x}")
    return model, header


def pack_expert(expert: QuantisedExpert, config: EngineConfig) -> Bytes:
    """The chunks [chunks, chunk_bytes] of one expert, CRCs still zero."""
    F, G, S = config.chunk_units, config.group_units, config.segments
    n, d = F // G, expert.Wg.shape[1]
    chunks = expert.units // F
    packed = np.zeros((chunks, config.chunk_bytes(d)), np.uint8)
    packed[:, 4:6].view("<u2")[:] = expert.mo
    packed[:, 6] = expert.so
    rows = np.zeros(expert.units, np.uint64)
    for name, bit in (_SCALE_BITS | _SHIFT_BITS).items():
        rows |= getattr(expert, name).astype(np.uint64) << np.uint64(bit)
    scales = packed[:, CHUNK_HEAD_BYTES : CHUNK_HEAD_BYTES + UNIT_SCALE_BYTES * F]
    scales[:] = rows.astype("<u8").view(np.uint8).reshape(chunks, -1)
    gate_up = np.stack([expert.Wg, expert.Wu], axis=1).reshape(chunks, n, 2 * G * d)
    # down column of unit (chunk, group, u), output (w, seg) → chunk, group, word w, byte seg·G + u
    down = expert.Wd.reshape(d // S, S, chunks, n, G).transpose(2, 3, 0, 1, 4).reshape(chunks, n, G * d)
    weights = packed[:, config.meta_bytes :].view(np.int8)
    for g in range(n):
        start_gu, start_d = _group_starts(g, n, G * d)
        weights[:, start_gu : start_gu + 2 * G * d] = gate_up[:, g]
        weights[:, start_d : start_d + G * d] = down[:, g]
    return packed


def unpack_expert(packed: Bytes, config: EngineConfig) -> QuantisedExpert:
    """The expert in its chunks [chunks, chunk_bytes]: the inverse of ``pack_expert``."""
    F, G, S = config.chunk_units, config.group_units, config.segments
    chunks = len(packed)
    n, d = F // G, (packed.shape[1] - config.meta_bytes) // (3 * F)
    rows = np.ascontiguousarray(packed[:, CHUNK_HEAD_BYTES : CHUNK_HEAD_BYTES + UNIT_SCALE_BYTES * F]).view("<u8")
    widths = dict.fromkeys(_SCALE_BITS, SCALE_BITS) | dict.fromkeys(_SHIFT_BITS, SHIFT_BITS)
    scales = {
        name: ((rows.reshape(-1) >> np.uint64(bit)) & np.uint64((1 << widths[name]) - 1)).astype(np.int64)
        for name, bit in (_SCALE_BITS | _SHIFT_BITS).items()
    }
    weights = packed[:, config.meta_bytes :].view(np.int8)
    starts = [_group_starts(g, n, G * d) for g in range(n)]
    gate_up = np.stack([weights[:, gu : gu + 2 * G * d] for gu, _ in starts], axis=1).reshape(-1, 2, d)
    down = np.stack([weights[:, at : at + G * d] for _, at in starts], axis=1).reshape(chunks, n, d // S, S, G)
    return QuantisedExpert(
        Wg=np.ascontiguousarray(gate_up[:, 0]),
        Wu=np.ascontiguousarray(gate_up[:, 1]),
        Wd=np.ascontiguousarray(down.transpose(2, 3, 0, 1, 4).reshape(d, chunks * F)),
        mo=int(packed[0, 4:6].view("<u2")[0]),
        so=int(packed[0, 6]),
        **scales,
    )


def _group_starts(group: int, groups: int, size: int) -> tuple[int, int]:
    """Where GU(g) and D(g) start among a chunk's weights, in the order GU(0) GU(1) D(0) GU(2) D(1) … D(n−1)."""
    gate_up = 0 if group == 0 else (2 + 3 * (group - 1)) * size
    down = (4 + 3 * group) * size if group < groups - 1 else (3 * groups - 1) * size
    return gate_up, down


def _views(image: Bytes, layout: ImageLayout) -> tuple[Bytes, Bytes]:
    """Router images [L, bytes] and chunks [L, experts, chunks, bytes] as views of ``image``."""
    routers_end = layout.router_offset + layout.shape.layers * layout.router_bytes
    routers = image[layout.router_offset : routers_end].reshape(layout.shape.layers, -1)
    dims = (layout.shape.layers, layout.shape.experts_total, layout.chunks, layout.chunk_bytes)
    return routers, image[layout.expert_offset : layout.total_bytes].reshape(dims)


def _blocks(layout: ImageLayout, image_id: int, routers: Bytes, chunks: Bytes):
    """Each block with a CRC, and its seed: the routers, then all chunks in the order of their addresses."""
    for i, router in enumerate(routers):
        yield router, router_seed(image_id, i)
    for i, e, c in np.ndindex(chunks.shape[:3]):
        yield chunks[i, e, c], chunk_seed(image_id, i, e, c)


def _place(layout: ImageLayout, number: int) -> str:
    """The name of block ``number`` of ``_blocks``."""
    if number < layout.shape.layers:
        return f"router of layer {number}"
    expert, chunk = divmod(number - layout.shape.layers, layout.chunks)
    layer, expert = divmod(expert, layout.shape.experts_total)
    return f"layer {layer}, expert {expert}, chunk {chunk}"
