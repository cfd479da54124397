"""Published systems that **alter routing**: baselines whose loss of quality is measured. Nothing in stmoe does it."""
