"""`collector run --record FILE --redact`: a capture file that is made of records (docs/decisions/0036).

    exchange.py   a record -> the exchange that it tells of, or why it cannot be told again
    bodies.py     a payload -> the bytes of a body
    http1.py, http2.py   an exchange -> what two programs would have said to each other
    events.py     that, with its times -> events, as the kernel programs would have made them
    recorder.py   the file

Nothing but records comes in here, redacted and filtered as they are delivered: what they do not hold cannot reach the file.
"""
