"""The settings: what can be configured, and how it is read. The only reader of ``os.environ`` and of settings files.

`settings` holds the dataclasses, `values` what their types take, `sources` finds values, `loading` puts them together,
`reference` writes the documentation.
"""

from serverfull.config.loading import LoadedSettings, load
from serverfull.config.settings import (
    ClientSettings,
    ConnstateSettings,
    ExpvarSettings,
    FunctionSettings,
    LimitSettings,
    LoggingSettings,
    ServerSettings,
    Settings,
    SignalSettings,
    StatsSettings,
)

__all__ = [
    "ClientSettings",
    "ConnstateSettings",
    "ExpvarSettings",
    "FunctionSettings",
    "LimitSettings",
    "LoadedSettings",
    "LoggingSettings",
    "ServerSettings",
    "Settings",
    "SignalSettings",
    "StatsSettings",
    "load",
]
