"""kritash, the shell: one command, many lines, or a prompt.

Pure: ``grammar`` (what a command is), ``parser`` (line to invocation),
``suggest`` (completion), ``commands`` (the one table), ``help``. Edges:
``cli`` (argv and exit codes), ``context`` (the connection), ``actions`` (what
the commands do), ``render`` (all output), ``repl``, ``prompt`` and ``health``
(the terminal), ``bench*`` (the load generator). Imports ``krita`` only, never
the daemon: what the shell can do, any program can do.
"""
