"""What the units of a deployment of many know of each other."""
