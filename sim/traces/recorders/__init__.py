"""Recorders: what runs a model and notes its routing. Each has the members of ``stmoe.sim.traces.recording.Recorder``."""
