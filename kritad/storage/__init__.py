"""What a node keeps on disk: raft.db (log, votes) and data.db (keys), in SQLite.

Synchronous and free of trio: who calls decides on which thread. Errors are in
errors.py; the order in which durability is promised is in kritad/host/drive.py.
"""
