"""Types of transcode.pyx: nothing that Python sees."""
