"""Where the pure parts meet the world: replicas, the drive loop, threads and peers."""
