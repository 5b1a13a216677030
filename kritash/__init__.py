"""kritash, the shell: one command, many lines, or a prompt.

Pure: ``grammar`` (what a command is), ``parser`` (line to invocation),
``suggest`` (completion), ``commands`` (the one table), ``help``, ``times``
(durations and moments), ``transaction*`` and ``differences``. Edges:
``cli`` (argv and exit codes), ``context`` (the connection), ``nouns`` (the
rows of the table and what they do), ``watching`` and ``holding`` (what follows,
and what runs under a lock), ``render`` and ``views`` (all output), ``listing``
(long results), ``repl``, ``prompt`` and ``health`` (the terminal), ``bench*``
(the load generator). Imports ``krita`` only, never the daemon: what the shell
can do, any program can do.
"""
