"""What a register is: its fields, what a write does, and a map of registers by offset."""

import enum
from dataclasses import dataclass

REGISTER_BITS = 32
ADDRESS_BITS = 12


class Access(enum.Enum):
    """What a write does."""

    RO = "ro"  #: refused with SLVERR
    RW = "rw"  #: stored
    W1C = "w1c"  #: ones clear
    WO = "wo"  #: ones trigger; reads zero


@dataclass(frozen=True, kw_only=True)
class Field:
    """Bits ``lsb`` to ``lsb + width - 1`` of a register."""

    name: str
    lsb: int
    width: int
    doc: str

    def __post_init__(self):
        if self.lsb < 0 or self.width < 1 or self.lsb + self.width > REGISTER_BITS:
            raise ValueError(f"field {self.name!r}: bits {self.lsb}+{self.width} do not lie in {REGISTER_BITS}")

    @property
    def mask(self) -> int:
        """The field's bits within the register."""
        return ((1 << self.width) - 1) << self.lsb


@dataclass(frozen=True, kw_only=True)
class Register:
    """One register of 32 bits. ``reset`` is the value after reset, and for constants the value for ever."""

    name: str
    offset: int
    access: Access
    doc: str
    fields: tuple[Field, ...]
    reset: int = 0

    def __post_init__(self):
        if self.offset % 4 or not 0 <= self.offset < 1 << ADDRESS_BITS:
            raise ValueError(f"register {self.name!r}: offset {self.offset:#x} is not a word of the map")
        used = 0
        for field in self.fields:
            if used & field.mask:
                raise ValueError(f"register {self.name!r}: field {field.name!r} overlaps another")
            used |= field.mask
        if self.reset & ~used:
            raise ValueError(f"register {self.name!r}: reset {self.reset:#x} has bits outside its fields")

    @property
    def mask(self) -> int:
        """All bits that belong to fields."""
        return sum(field.mask for field in self.fields)

    def field(self, name: str) -> Field:
        """The field ``name``."""
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(f"register {self.name} has no field {name!r}")

    def encode(self, **values: int) -> int:
        """The register's value with ``values`` in its fields, zero elsewhere."""
        word = 0
        for name, value in values.items():
            field = self.field(name)
            if not 0 <= value < 1 << field.width:
                raise ValueError(f"{self.name}.{name} = {value}: does not fit {field.width} bits")
            word |= value << field.lsb
        return word

    def decode(self, word: int) -> dict[str, int]:
        """The fields of ``word``."""
        return {field.name: (word & field.mask) >> field.lsb for field in self.fields}


@dataclass(frozen=True)
class RegisterMap:
    """All registers of a build, by offset."""

    registers: tuple[Register, ...]

    def __post_init__(self):
        offsets = [register.offset for register in self.registers]
        if offsets != sorted(set(offsets)):
            raise ValueError("register offsets are not rising")
        if len({register.name for register in self.registers}) != len(self.registers):
            raise ValueError("two registers share a name")

    def __getitem__(self, name: str) -> Register:
        for register in self.registers:
            if register.name == name:
                return register
        raise KeyError(f"no register {name!r}")

    def __iter__(self):
        return iter(self.registers)
