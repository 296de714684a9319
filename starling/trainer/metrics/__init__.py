"""What a classifier's probabilities are worth: small functions over the outputs of a whole split, in float64.

A value that the split cannot define (no sample of a class, say) is None, never NaN.
"""
