"""How many examples a property gets: as many as usual, or `few` where the same was asked elsewhere (see tox.ini)."""

from hypothesis import settings

# A property that needs more or fewer than others says so in relation: `max_examples=3 * settings().max_examples`.
settings.register_profile("few", max_examples=10)
