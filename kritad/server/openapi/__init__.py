"""The description of the HTTP interface for programs: OpenAPI 3.1, ``GET /openapi.json``.

Pure: values that say what ``http_*.py`` do. ``parts`` has what many addresses share
(schemas, headers, parameters, errors), ``kv``, ``names`` and ``node`` each the addresses
of the handlers' module of that name, ``document`` puts them together.

To add an address: its row in ``http_routes.Routes``, and its entry in the ``PATHS``
of the file here that is named after its handlers' module. A test holds both to one
another, and others compare what a server answers with what is said here.
"""
