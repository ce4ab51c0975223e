"""A small oVirt engine, which oVirt's own client of the API and the real imageio daemon talk to."""
