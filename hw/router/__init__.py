"""The router: gate mat-vec, exact top-k, softmax weights, and the loading of its weights."""
