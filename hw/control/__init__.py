"""Control: messages in and out, the order of one layer, registers and counters."""
