"""Which weighting helps on a long tail? Barata & Santiago (CVPR Workshops 2020), reproduced.

python -m examples.isic2018 --help
"""
