"""Whether a host can be reached: start with :func:`unmask.network.hubs.offline_unless_reached`."""
