"""Everything an operator can set, declared once: flags and the reference page are derived from the declarations.

This file imports nothing, so that a program which needs one variable starts fast.
"""
