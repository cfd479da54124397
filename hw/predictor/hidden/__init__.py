"""The hidden-state predictor: gates, default vectors and rankers, whatever the section of a layer holds (docs/predictors.md)."""
