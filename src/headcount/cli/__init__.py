"""The command line: one file per group of commands, imported when a command of it is used."""

#: In the metadata of a click context: the path given by `--config`, and the `Layers` of the command.
CONFIG, LAYERS = "headcount.config", "headcount.layers"
