"""What a study says beside its verdict, one module each: sizes, claims, rates, mixtures."""
