"""What can be trained, one module a kind of model: `training.task.Task` says what each must tell.

`diffusion` is the task of a cascade's stage; `factory` makes the tasks of a recipe for
`training.run`; the rest prepares, judges, prices and joins what they train. May import `training`,
`cascade` and the rooms above them.
"""
