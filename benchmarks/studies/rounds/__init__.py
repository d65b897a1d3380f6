"""Rounds of looking with a grader who knows: what the queue finds against scores alone and chance."""
