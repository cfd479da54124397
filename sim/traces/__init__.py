"""Expert-routing traces: the format (docs/traces.md), its checks, importers for what other tools write, and the recorder."""
