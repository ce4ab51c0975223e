"""What the outputs for oVirt share: the engine's API, image transfers, OVF and volume metadata."""
