"""The device library: a Raspberry Pi, a car unit or any Linux machine as a device of headcount.

It needs paho-mqtt and the standard library only.
"""
