"""What HTTP messages mean, whichever protocol carries them."""
