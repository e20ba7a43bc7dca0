"""Statistics of every spiking layer's input, from data or from none."""
