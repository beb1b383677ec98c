"""What all pages written to disk share: style sheet, layout, charts, images as data URIs.

Text, numbers, figures and images come in; one HTML file that loads nothing goes out. Knows
nothing of runs, samples or studies; may import `storage`. `page` needs jinja2, `charts`
matplotlib: rooms that use them say which extra brings these.
"""
