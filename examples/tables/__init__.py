"""Does following the verdict of ``compare`` pay, on a hundred tables?"""
