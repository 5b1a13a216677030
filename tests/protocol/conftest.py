"""Property tests here are repeatable, and not a race against a busy machine."""

from hypothesis import settings

settings.register_profile("krita", derandomize=True, deadline=None)
settings.load_profile("krita")
