"""The process that holds models: images of many clients share network calls, step by step.

Frames of `wire` come in on stdin (`process`); every image is worked on by the ordinary path of
`generation` in a greenlet of its own (`strand`), which is suspended at its network call; the loop
(`loop`) joins the calls that wait (`batching`) and hands each image its rows back. `tasks` makes of
a request what is to be generated, `shelf` loads models and lets them go. May import `generation`
and the rooms above it, and `serving.job` and `serving.wire`; knows nothing of HTTP.

Why greenlets: a call waits deep inside plain functions (guidance inside tiles inside a solver's
step), where a generator cannot stop. A switch to a greenlet and back takes 2.5 us, threads with a
baton 400 us (`benchmarks/serving.py switch`), and threads would each have their own grad mode.
"""
