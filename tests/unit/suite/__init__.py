"""The suite itself: its passes, its judge, its lists."""
