"""Request -> plan -> images and their recipes: one path for every front end.

A `Request` (what a user asked for) goes in; `settle` makes a `Job` of it that any process can work
on; a generator plans captions and seeds, so that every error comes before anything is computed,
and then makes the images, with the recipe that each PNG carries. `lists` does so over long lists
of captions, in this process, in several, under torchrun or on Ray. May import `cascade`, `data` and
the rooms above them; nothing of the command line.
"""
