"""The graph of a run on Beam, and how its engines and workers are started and watched."""
