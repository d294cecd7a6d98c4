"""Read several connected accounts into one package of shared tables."""
