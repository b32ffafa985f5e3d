"""headcount: how many people and vehicles are in every zone of a campus, exactly and at once."""

from importlib.metadata import version

__version__ = version("headcount")
