"""The meta shard: who is in the cluster, which node holds what, and what to change next."""
