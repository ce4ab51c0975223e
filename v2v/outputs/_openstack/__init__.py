"""What the outputs for OpenStack share: the login, image properties, volumes, and images."""
