"""The Python client of Krita."""
