"""Worker processes: started, watched and ended together, on one machine or several."""
