"""A model in DRAM as the blocks that fetch its chunks are told of it."""

from stmoe.model.images import ImageLayout


def image_values(image: ImageLayout, image_id: int) -> dict:
    """``expert_image`` of hw/memory/address.py, with that part of the shape which addresses depend on."""
    config, shape = image.config, image.shape
    values = {
        "experts": shape.experts,
        "shared": shape.shared_experts,
        "layers": shape.layers,
        "top_k": shape.top_k,
        "chunks": config.chunks(shape),
        "chunk_beats": config.chunk_bytes(shape.d_model) // config.bus_bytes,
    }
    return {"model": values, "base": image.base + image.expert_offset, "id": image_id}
