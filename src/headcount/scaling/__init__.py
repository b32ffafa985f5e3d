"""How many brokers and workers there should be: watching, deciding, adding and removing."""
