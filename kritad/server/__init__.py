"""The one port: HTTP and CBOR connections, and everything a stranger may not do to them."""
