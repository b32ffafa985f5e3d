"""headcount: exact, real-time counts of people and vehicles in every zone of a campus."""

__version__ = "0.1.0"
