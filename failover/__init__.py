"""High availability for Cardano stake pools: exactly one block producer admitted to the network."""
