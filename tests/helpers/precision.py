"""Tolerances of mixed precision."""

# Bound on the relative difference of two gradients of tiny.yaml in bfloat16 that differ only in the order of
# their sums. A product rounds its results by at most 2^-9; some 40 products lie between a token and a
# gradient (2 blocks: 6 in the forward pass, 6 for the gradients of their inputs, 6 for those of their
# weights; and the head's). Independent errors grow with the square root of their number, and both results
# have them.
BF16_TOLERANCE = (2 * 40) ** 0.5 * 2**-9  # 1.7 %
