"""AXI4 protocol checkers in plain Python, for the Amaranth simulator and for cocotb alike.

A checker is fed once a clock cycle with what the channel signals are at the rising edge (``sample``), and raises ``AxiViolation``
with the cycle, the rule and the values. A signal that has no known value is given as ``None``: fine in a payload that is not
valid, a violation elsewhere. At the end ``finish`` checks that nothing is left outstanding.

Rules: Arm IHI 0022 (AMBA AXI protocol), A3.2 (handshake, stability), A3.4 (bursts), and this engine's own: full-width INCR bursts,
aligned, not across ``burst_bytes``, one ID.
"""

from collections import deque
from collections.abc import Mapping

Sample = Mapping[str, int | None]

BOUNDARY_BYTES = 4096
INCR = 1
ADDRESS_FIELDS = ("id", "addr", "len", "size", "burst", "cache", "prot")


class AxiViolation(AssertionError):
    """A rule of the protocol was broken."""


class _Checker:
    """Cycle count, reporting, and the rules that hold on every channel."""

    name: str

    def __init__(self):
        self.cycle = 0
        self._held: dict[str, dict[str, int | None]] = {}

    def fail(self, rule: str, detail: str) -> None:
        raise AxiViolation(f"{self.name}, cycle {self.cycle}: {rule}: {detail}")

    def known(self, s: Sample, name: str) -> int:
        value = s[name]
        if value is None:
            self.fail("UNKNOWN", f"{name} has no known value")
            raise AssertionError
        return value

    def transfer(self, s: Sample, prefix: str, fields: tuple[str, ...]) -> dict[str, int] | None:
        """Stability of one channel; its payload when it is transferred in this cycle."""
        valid, ready = self.known(s, f"{prefix}valid"), self.known(s, f"{prefix}ready")
        present = [f"{prefix}{field}" for field in fields if f"{prefix}{field}" in s]
        held = self._held.pop(prefix, None)
        if held is not None:
            if not valid:
                self.fail(f"{prefix.upper()}_STABLE", "valid fell before ready")
            for field, value in held.items():
                if s[field] != value:
                    self.fail(f"{prefix.upper()}_STABLE", f"{field} changed from {value} to {s[field]} before ready")
        if not valid:
            return None
        payload = {field: self.known(s, field) for field in present}
        if not ready:
            self._held[prefix] = dict(payload)
            return None
        return payload

    def reset(self) -> None:
        """Forget everything: the bus was reset."""
        self._held.clear()


class _BurstChecker(_Checker):
    """The rules of an address channel.

    Parameters
    ----------
    data_bytes : bus width.
    burst_bytes : no burst may cross a multiple of this.
    outstanding : bursts accepted and not finished, at most; ``None``: any number.
    window : first and last byte that may be touched; ``None``: all.
    """

    prefix: str

    def __init__(
        self,
        data_bytes: int,
        burst_bytes: int = BOUNDARY_BYTES,
        outstanding: int | None = None,
        window: tuple[int, int] | None = None,
    ):
        super().__init__()
        self.data_bytes = data_bytes
        self.burst_bytes = burst_bytes
        self.outstanding = outstanding
        self.window = window
        self.bursts = 0
        self.beats = 0
        self.reset()

    def check_burst(self, payload: Mapping[str, int], pending: int) -> int:
        """Check one accepted burst, with ``pending`` others outstanding; its beats."""
        upper = self.prefix.upper()
        address, beats = payload[f"{self.prefix}addr"], payload[f"{self.prefix}len"] + 1
        last = address + beats * self.data_bytes - 1
        shown = f"address {address:#x}, {beats} beats"
        if 1 << payload[f"{self.prefix}size"] != self.data_bytes:
            self.fail(f"{upper}_SIZE", f"size {payload[f'{self.prefix}size']} on a bus of {self.data_bytes} bytes")
        if payload[f"{self.prefix}burst"] != INCR:
            self.fail(f"{upper}_INCR", f"burst type {payload[f'{self.prefix}burst']}")
        if payload.get(f"{self.prefix}id", 0) != 0:
            self.fail(f"{upper}_ID", f"id {payload[f'{self.prefix}id']}")
        if address % self.data_bytes:
            self.fail(f"{upper}_ALIGNED", shown)
        if address // BOUNDARY_BYTES != last // BOUNDARY_BYTES:
            self.fail(f"{upper}_4KB", shown)
        if address // self.burst_bytes != last // self.burst_bytes:
            self.fail(f"{upper}_LENGTH", f"{shown} cross a boundary of {self.burst_bytes} bytes")
        if self.window is not None and not (self.window[0] <= address and last <= self.window[1]):
            self.fail(f"{upper}_WINDOW", f"{shown} outside {self.window[0]:#x} … {self.window[1]:#x}")
        if self.outstanding is not None and pending >= self.outstanding:
            self.fail(f"{upper}_OUTSTANDING", f"{pending + 1} bursts, at most {self.outstanding}")
        self.bursts += 1
        return beats


class AxiReadChecker(_BurstChecker):
    """AR and R of one master with one ID."""

    name, prefix = "AXI read", "ar"

    def sample(self, s: Sample) -> None:
        """One cycle: ``ar`` + valid, ready, addr, len, size, burst [, id, cache, prot]; ``r`` + valid, ready, data, resp, last."""
        if s["rvalid"] and not self._pending:
            self.fail("R_WITHOUT_AR", "data, and no burst accepted before")
        accepted = self.transfer(s, "ar", ADDRESS_FIELDS)
        returned = self.transfer(s, "r", ("id", "data", "resp", "last"))
        if returned is not None:
            self._beat += 1
            self.beats += 1
            if bool(returned["rlast"]) != (self._beat == self._pending[0]):
                self.fail("R_LAST", f"rlast = {returned['rlast']} on beat {self._beat} of {self._pending[0]}")
            if returned["rlast"]:
                self._pending.popleft()
                self._beat = 0
        if accepted is not None:
            self._pending.append(self.check_burst(accepted, len(self._pending)))
        self.cycle += 1

    def reset(self) -> None:
        super().reset()
        self._pending: deque[int] = deque()
        self._beat = 0

    def finish(self) -> None:
        """Nothing is outstanding."""
        if self._pending:
            self.fail("R_MISSING", f"{len(self._pending)} bursts without all their data")


class AxiWriteChecker(_BurstChecker):
    """AW, W and B of one master with one ID."""

    name, prefix = "AXI write", "aw"

    def sample(self, s: Sample) -> None:
        """One cycle: ``aw`` as ``ar``; ``w`` + valid, ready, data, strb, last; ``b`` + valid, ready, resp."""
        if s["bvalid"] and not self._complete:
            self.fail("B_WITHOUT_WRITE", "a response, and no burst complete before")
        addressed = self.transfer(s, "aw", ADDRESS_FIELDS)
        written = self.transfer(s, "w", ("data", "strb", "last"))
        answered = self.transfer(s, "b", ("id", "resp"))
        if answered is not None:
            self._complete -= 1
        if addressed is not None:
            pending = len(self._addressed) + self._complete
            self._addressed.append(self.check_burst(addressed, pending))
        if written is not None:
            self._beat += 1
            if self._beat > 256:
                self.fail("W_LAST", "no wlast in 256 beats")
            if written["wlast"]:
                self._written.append(self._beat)
                self._beat = 0
            elif self._addressed and not self._written and self._beat >= self._addressed[0]:
                self.fail("W_LAST", f"no wlast on beat {self._beat} of {self._addressed[0]}")
        while self._addressed and self._written:
            expected, beats = self._addressed.popleft(), self._written.popleft()
            if beats != expected:
                self.fail("W_LAST", f"wlast on beat {beats} of {expected}")
            self._complete += 1
        self.cycle += 1

    def reset(self) -> None:
        super().reset()
        self._addressed: deque[int] = deque()  # beats of bursts whose data is not complete
        self._written: deque[int] = deque()  # beats of complete data whose address has not come
        self._beat = 0
        self._complete = 0  # bursts that wait for B

    def finish(self) -> None:
        """Nothing is outstanding."""
        if self._addressed or self._written or self._beat:
            self.fail("W_MISSING", "a burst without all its data, or data without an address")
        if self._complete:
            self.fail("B_MISSING", f"{self._complete} bursts without a response")
