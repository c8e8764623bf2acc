"""What a series touches: patches in, functions, their places in a kernel and the races they are a party to out."""
