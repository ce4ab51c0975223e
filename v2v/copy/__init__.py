"""The copy engine: from one NBD endpoint to one sink, data only."""
