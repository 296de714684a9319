"""Rendered fundus photographs with labels: test and demonstration data that anyone may have, in any amount.

What `starling data synth fundus DIR` writes, and what others may rely on:

    DIR/<patient>_left.jpeg, <patient>_right.jpeg     square photographs, patients counted from 1
    DIR/trainLabels.csv   image,level                 the layout of Kaggle's diabetic retinopathy data; image: no suffix
    DIR/truth.csv         image,level,artefact,<kind of lesion>,...      names joined by "+"; visible lesions of a kind
    DIR/lesions.csv       image,kind,x,y,radius       one visible lesion a line; pixels from the upper left corner
    DIR/synth.json        what the folder was rendered with

Kinds of lesions are `lesions.KINDS`. Image i is a pure function of (seed, i, size): the number of images and of workers
changes nothing about it.
"""
