"""``identity audit relay``."""

from __future__ import annotations

from identity.cli.settings import ConfigFile, Overrides, settings_of


def relay(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Move audit events from the store to the sinks until SIGTERM or Ctrl-C.

    Needs the settings of the service for the store and the sinks, and no keys. Where relays run, the servers need none inside:

        identity serve --config identity.toml --set audit.relay=false
        identity audit relay --config identity.toml

    Any number may run; they share the work out, and take over what one that died has left. Sinks are those of audit.sinks;
    where the OTLP sink sends to, the standard variables say: OTEL_EXPORTER_OTLP_ENDPOINT and its siblings.
    """
    import uvloop

    from identity.cli.logs import configure_logging
    from identity.relay_process import serve_relay

    settings = settings_of(config, overrides)
    configure_logging(settings.log.level, settings.log.format)
    uvloop.run(serve_relay(settings))
