"""The settings: what can be configured, and how it is read. The only reader of ``os.environ`` and of settings files.

`settings` holds the dataclasses, `values` what their types take, `sources` finds values, `loading` puts them together,
`reference` writes the documentation. `native` is the same for a native Lambda, and imported from there, as
is `installers`: what of the environment package installers see.
"""

from serverfull.config.loading import LoadedSettings, load
from serverfull.config.settings import (
    AwsSettings,
    ClientSettings,
    ConnstateSettings,
    DependencySettings,
    DestinationSettings,
    DockerSettings,
    ExecutionSettings,
    ExpvarSettings,
    FunctionSettings,
    LambdaModeSettings,
    LimitSettings,
    LoggingSettings,
    MockSettings,
    ServerSettings,
    Settings,
    SignalSettings,
    StateSettings,
    StatsSettings,
)

__all__ = [
    "AwsSettings",
    "ClientSettings",
    "ConnstateSettings",
    "DependencySettings",
    "DestinationSettings",
    "DockerSettings",
    "ExecutionSettings",
    "ExpvarSettings",
    "FunctionSettings",
    "LambdaModeSettings",
    "LimitSettings",
    "LoadedSettings",
    "LoggingSettings",
    "MockSettings",
    "ServerSettings",
    "Settings",
    "SignalSettings",
    "StateSettings",
    "StatsSettings",
    "load",
]
