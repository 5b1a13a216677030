"""The consensus core: one pure object per shard, no I/O, no clock, no chance of its own."""
