"""Numbers over made videos, grouped by theme; each module says what its numbers mean.

`pixels` and `parts` compare pictures, `lpips`, `sets` and `fvd` compare what networks see in them,
`motion` and `identity` compare what trackers see, `steadiness` looks at time, with `flow`.
"""
