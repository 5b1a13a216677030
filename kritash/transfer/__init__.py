"""Keys and values in files: what ``key import`` reads and ``key export`` writes.

Pure: a reader takes pieces of text and yields Records, a writer takes Records and
yields pieces of text; ``formats`` is the table of both. They hold one record at a
time, however large a file is.

Rules:
* Nothing is skipped or guessed. What a reader does not know is a TransferError that
  names the line or the record, and says what was expected.
* What a source has of a record and Krita does not keep (Consul's flags, etcd's lease)
  is named in ``Record.lost``, for the command to count and tell.
* A reader gives back what the writer of its format was given, whatever the bytes.
"""
