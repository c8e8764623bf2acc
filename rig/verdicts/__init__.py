"""The verdict: trials in, what they say of the patches and how sure that is out."""
