"""Recurrent surrogates: a few blocks, applied again and again, in place of all of a model's."""
