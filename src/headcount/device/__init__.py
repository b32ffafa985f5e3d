"""The device library: a Raspberry Pi, a car unit or any Linux machine as a device of headcount.

It needs paho-mqtt and the standard library only; over HTTP it does not need paho-mqtt either.
"""

from headcount.device.client import ClientStatus, DeviceClient
from headcount.device.credentials import (
    DeviceCertificates,
    DeviceCredentials,
    credentials_of,
    read_credentials,
    redeem,
    write_credentials,
)
from headcount.device.orders import DeviceOrder
from headcount.device.positions import DevicePosition
from headcount.device.reporting import ReportReason, ReportRules

__all__ = [
    "ClientStatus",
    "DeviceCertificates",
    "DeviceClient",
    "DeviceCredentials",
    "DeviceOrder",
    "DevicePosition",
    "ReportReason",
    "ReportRules",
    "credentials_of",
    "read_credentials",
    "redeem",
    "write_credentials",
]
