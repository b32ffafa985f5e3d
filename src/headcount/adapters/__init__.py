"""The translator of other formats, and the import of OpenStreetMap data."""
