"""Training of the project's own language model. Needs the `train` extra (torch, transformers); nothing else does."""
