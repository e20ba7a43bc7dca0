"""What a conversion costs: Omega and the fit curve, accuracy over timesteps."""
