"""The shell's nouns: a file for each, with its commands' rows and what they do.

An action is a function from Context and Invocation to Reply: a request or two, and
the answer put into a document. Whatever ``krita`` raises passes through; ``dispatch``
presents it. Nothing here prints results. What a few commands need alone is imported
where they need it: a plain ``get`` should not pay for it.
"""
