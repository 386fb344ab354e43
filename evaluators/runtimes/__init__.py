"""One file per runtime. Its text is sent to the device with each job, and runs there without this project.

A runtime file has the standard library of Python 3.8 at its top and the runtime itself inside its functions:

    PRECISIONS      that it can compute in, of "fp32", "fp16", "bf16", "int8"
    DEVICES         what it computes on: ("cpu",), or with "cuda", "tensorrt"; the first is the default
    identity(settings) -> dict                   runtime, version, and whatever else times depend on
    model_format(precision, identity) -> str     what it reads: a name in `evaluators/export.py`
    load(model, settings) -> network

`settings` has `threads`, `precision`, `device`, `exclusive` (nothing else runs on the device) and `folder` (a scratch
folder). A network has

    settings                what is really used, read back from the runtime
    run() -> float | None   one run on a fixed random image; milliseconds if the runtime has a clock of its own
    infer(image) -> list    the outputs, as arrays, for an image (1, 3, height, width); for None, the fixed random one

or, if the runtime times a network by itself for a whole session, `samples()` in place of the last two: a list of
milliseconds, and a list of flags.

An error whose message begins with `config_mismatch: `, `unsupported: `, `garbage: `, `timeout: ` or `oom: ` has that
cause: what was asked for is not what would be used; the model cannot run there; the output makes no sense.
"""
