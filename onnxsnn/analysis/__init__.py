"""What a conversion costs: per layer, over timesteps, in operations, and beside other ways."""
