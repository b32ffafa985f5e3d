"""Everything an operator can set, declared once.

    model.py        a setting: name, type, default, range, format, help, group
    formats.py      texts with a format: hosts, addresses, networks, URLs, names
    deployment.py   Settings: one deployment, with the sections below
    scaling.py      ScaleSettings: the section `scale`
    proxy.py        ProxySettings: the section `proxy`
    layers.py       flag > environment variable > configuration file > default
    environment.py  the only module of headcount that reads the environment

Flags (`cli/options.py`) and the reference page (`docs/generate.py`) are derived from the same
declarations. This file imports nothing, so that a program which needs one variable starts fast.
"""
