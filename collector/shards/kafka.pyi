"""Types of kafka.pyx: nothing that Python could call."""
