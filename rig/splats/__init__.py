"""What a kernel complains of: a console's bytes in, findings with the functions and lines that they accuse out."""
