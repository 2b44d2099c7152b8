"""Record what a model does on its way through depth."""
