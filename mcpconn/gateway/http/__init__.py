"""HTTP in front of the endpoints: bodies within limits, slow clients, activation, shutdown."""
