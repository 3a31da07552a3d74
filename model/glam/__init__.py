"""The model of the GLaM paper (Du et al., 2022): layers, routing, experts, loss."""
