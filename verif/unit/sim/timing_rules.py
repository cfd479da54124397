"""An independent referee of DRAM timing: replays a command log against the datasheet parameters of a ``DramConfig``.

It shares no code and no derived state with the model: it keeps the history of every bank and compares picoseconds.
"""

from stmoe.sim.dram.config import DramConfig
from stmoe.sim.dram.timing import Command


class RuleBroken(AssertionError):
    """A command came too early, to the wrong row, or a refresh too late."""


class _Bank:
    def __init__(self):
        self.row = -1
        self.activated = self.precharged = self.read = self.write_end = -(10**12)


def check_log(config: DramConfig, log: list[Command]) -> None:
    """Raise ``RuleBroken`` at the first command of the log that breaks a rule."""
    banks = [_Bank() for _ in range(config.banks)]
    activates: list[int] = []
    refreshes = [0]
    last: dict[str, int] = {}
    tck = config.clock_ps

    def later(rule: str, command: Command, since: int, ps: int) -> None:
        if command.tick * tck < since + ps:
            raise RuleBroken(f"{rule}: {command} comes {command.tick * tck - since} ps after, must be {ps}")

    previous = -1
    for command in sorted(log, key=lambda c: c.tick):
        now = command.tick * tck
        if command.tick == previous:
            raise RuleBroken(f"two commands in clock {command.tick}")
        previous = command.tick
        later("tRFC", command, refreshes[-1] if len(refreshes) > 1 else -(10**12), config.trfc_ps)
        if now > refreshes[-1] + 9 * config.trefi_ps:
            raise RuleBroken(f"tREFI: no refresh for {now - refreshes[-1]} ps before {command}")
        if len(refreshes) - 1 < now // config.trefi_ps - 8:
            raise RuleBroken(f"tREFI: {len(refreshes) - 1} refreshes by {now} ps")
        if command.name == "ACT":
            bank = banks[command.bank]
            if bank.row >= 0:
                raise RuleBroken(f"{command}: row {bank.row} is open")
            later("tRP", command, bank.precharged, config.trp_ps)
            later("tRC", command, bank.activated, config.trc_ps)
            if activates:
                later("tRRD", command, activates[-1], config.trrd_ps)
            if len(activates) >= 4:
                later("tFAW", command, activates[-4], config.tfaw_ps)
            activates.append(now)
            bank.row, bank.activated = command.row, now
        elif command.name in ("PRE", "PREA"):
            for bank in banks if command.name == "PREA" else [banks[command.bank]]:
                if bank.row < 0:
                    continue
                later("tRAS", command, bank.activated, config.tras_ps)
                later("tRTP", command, bank.read, config.trtp * tck)
                later("tWR", command, bank.write_end, config.twr_ps)
                bank.row, bank.precharged = -1, now
        elif command.name == "REF":
            for bank in banks:
                if bank.row >= 0:
                    raise RuleBroken(f"{command}: row {bank.row} is open")
                later("tRP", command, bank.precharged, config.trp_ps)
            if len(refreshes) * config.trefi_ps - tck * len(refreshes) > now:
                raise RuleBroken(f"tREFI: refresh {len(refreshes)} before it is due")
            refreshes.append(now)
        else:
            bank = banks[command.bank]
            if bank.row != command.row:
                raise RuleBroken(f"{command}: row {bank.row} is open")
            later("tRCD", command, bank.activated, config.trcd_ps)
            burst = config.burst_length // config.transfers_per_clock
            if command.name == "RD":
                if "RD" in last:
                    later("tCCD", command, last["RD"], max(config.tccd, burst) * tck)
                if "WR" in last:
                    later("tWTR", command, last["WR"] + (config.cwl + burst) * tck, config.twtr_ps)
                bank.read = now
            else:
                if "WR" in last:
                    later("tCCD", command, last["WR"], max(config.tccd, burst) * tck)
                if "RD" in last:
                    later("bus turnaround", command, last["RD"], (config.cl + burst - config.cwl) * tck)
                bank.write_end = now + (config.cwl + burst) * tck
            last[command.name] = now
