"""The Telemetry API (2022-07-01) and the Logs API (2020-08-15) of one sandbox: what its extensions are sent."""
