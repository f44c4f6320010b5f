"""Sites: where files are, who may use and change them, as whom, how much at once. The calls /sites."""
