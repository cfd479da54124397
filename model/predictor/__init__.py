"""Expert predictors, one twin a file."""
