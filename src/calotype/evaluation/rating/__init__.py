"""People's judgement: pages on which they compare images, what they answered, and what it says.

Sample sets and a protocol go in; answers, their statistics and a report come out. Needs the extra
`rate`; may import what `evaluation` may.
"""
