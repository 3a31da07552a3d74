"""One model on many processes: process groups, sharding and communication."""
