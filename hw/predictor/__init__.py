"""Expert predictors: one interface, routed in, scored experts out."""
