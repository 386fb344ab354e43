"""One file per scheduler: pure decisions about which paused trial to continue."""
