"""The front: the process that answers HTTP, keeps the queue and the images, and never waits.

Requests come in and become jobs of the hub; frames go out to engines and images come back. Never
imports torch: everything that computes is in the engines. May import `serving.job` and
`serving.wire` and the rooms that load no torch; knows nothing of any API's shapes.
"""
