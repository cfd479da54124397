"""Golden model of the buffer manager (docs/interfaces.md §3, "Buffer manager commands"): which frame holds what.

Frames, their chains, the stack of free frames and the exact LRU list of experts, as plain Python lists. Experts are named
by a reference ``(layer, expert)``.
"""

from dataclasses import dataclass, field
from enum import Enum

from stmoe.model.config import EngineConfig

Ref = tuple[int, int]


class Landing(Enum):
    """How a fetch ended."""

    OK = 0
    CRC = 1
    AXI = 2
    ABORTED = 3


@dataclass(frozen=True)
class Response:
    """The answer to a command; ``ready`` is what it sends to the mapping unit, as (slot, frame), in order."""

    ok: bool = True
    frame: int = 0
    chunk: int = 0
    count: int = 0
    pending: int = 0
    ready: tuple[tuple[int, int], ...] = ()


@dataclass
class Resident:
    """One expert: its frames in order of chunks, those of them that are pending, and its marks."""

    frames: list[int] = field(default_factory=list)
    landed: set[int] = field(default_factory=set)
    pending: int = 0
    slot: int | None = None
    protected: bool = False


class ExpertBuffer:
    """Residency of experts, chunk by chunk.

    Attributes
    ----------
    evicted : frames taken from resident experts by ``alloc`` so far.
    errors : landings that were bad or not expected so far.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        self.evicted = 0
        self.errors = 0
        self.flush()

    def flush(self) -> Response:
        """Empty everything; frame 0 is the first to be handed out."""
        self.experts: dict[Ref, Resident] = {}
        self.free = list(reversed(range(self.config.frames)))  # a stack, its top at the end
        self.lru: list[Ref] = []  # coldest first
        return Response()

    def expert(self, ref: Ref) -> Resident:
        """The row of ``ref``."""
        return self.experts.setdefault(ref, Resident())

    @property
    def resident_frames(self) -> int:
        """Frames that are not free."""
        return self.config.frames - len(self.free)

    def pin(self, ref: Ref, slot: int) -> Response:
        """Mark ``ref`` selected by ``slot``; its landed chunks become ready, last chunk first."""
        expert = self.expert(ref)
        expert.slot = slot
        self._touch(ref)
        ready = tuple((slot, frame) for frame in reversed(expert.frames) if frame in expert.landed)
        return Response(count=len(expert.frames), pending=expert.pending, ready=ready)

    def protect(self, ref: Ref) -> Response:
        """Mark ``ref`` protected."""
        expert = self.expert(ref)
        expert.protected = True
        return Response(count=len(expert.frames), pending=expert.pending)

    def release(self, ref: Ref) -> Response:
        """Clear both marks."""
        self.expert(ref).slot = None
        self.expert(ref).protected = False
        return Response()

    def unprotect(self, ref: Ref) -> Response:
        """Clear the protection only."""
        self.expert(ref).protected = False
        return Response()

    def demote(self, ref: Ref) -> Response:
        """Clear the protection, and give ``ref`` up before all others."""
        if ref in self.lru:
            self.lru.remove(ref)
            self.lru.insert(0, ref)
        return self.unprotect(ref)

    def alloc(self, ref: Ref) -> Response:
        """Append a frame to ``ref``: a free one, else the last one of the coldest expert that may give it."""
        if not self.free and not self._steal(ref):
            return Response(ok=False)
        expert = self.expert(ref)
        frame = self.free.pop()
        chunk = len(expert.frames)
        expert.frames.append(frame)
        expert.pending += 1
        if chunk == 0:
            self.lru.append(ref)
        return Response(frame=frame, chunk=chunk)

    def evict(self, ref: Ref) -> Response:
        """Give up every frame and clear the marks; refused while frames are pending."""
        expert = self.expert(ref)
        if expert.pending:
            return Response(ok=False)
        while expert.frames:
            self._give_up_last(ref)
        return self.release(ref)

    def cancel(self, ref: Ref) -> Response:
        """Take back the last ALLOC of ``ref``, whose fetch was withdrawn."""
        expert = self.expert(ref)
        if expert.pending == 0:
            return Response(ok=False)
        expert.pending -= 1
        self._give_up_last(ref)
        return Response()

    def landed(self, ref: Ref, frame: int, status: Landing) -> Response:
        """A fetch into ``frame`` of ``ref`` has ended."""
        expert = self.expert(ref)
        if expert.pending == 0:
            self.errors += 1
            return Response(ok=False)
        expert.pending -= 1
        if status is Landing.ABORTED:
            self._give_up_last(ref)
            return Response()
        if status is not Landing.OK:
            self.errors += 1
            return Response(ok=False)
        expert.landed.add(frame)
        return Response(ready=() if expert.slot is None else ((expert.slot, frame),))

    def check(self) -> None:
        """Raise ``AssertionError`` unless chains and free list partition the frames and the LRU list is who holds any."""
        held = [frame for expert in self.experts.values() for frame in expert.frames]
        assert sorted(held + self.free) == list(range(self.config.frames)), "chains and free list partition the frames"
        holders = {ref for ref, expert in self.experts.items() if expert.frames}
        assert sorted(self.lru) == sorted(holders), "the LRU list names every expert with frames, once"
        for ref, expert in self.experts.items():
            assert expert.landed <= set(expert.frames), f"{ref}: a landed frame is in the chain"
            assert 0 <= expert.pending <= len(expert.frames) - len(expert.landed), (
                f"{ref}: pending frames are not landed"
            )

    def _touch(self, ref: Ref) -> None:
        if ref in self.lru:
            self.lru.remove(ref)
            self.lru.append(ref)

    def _steal(self, ref: Ref) -> bool:
        for victim in self.lru:
            expert = self.expert(victim)
            if victim == ref or expert.protected or expert.pending:
                continue
            if expert.slot is not None:
                break
            self._give_up_last(victim)
            self.evicted += 1
            return True
        return False

    def _give_up_last(self, ref: Ref) -> None:
        expert = self.expert(ref)
        frame = expert.frames.pop()
        expert.landed.discard(frame)
        self.free.append(frame)
        if not expert.frames:
            self.lru.remove(ref)
