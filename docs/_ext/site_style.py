"""The style of the gallery's figures: that of docs/matplotlibrc, as in the notebooks."""

import os

import matplotlib as mpl
import matplotlib.pyplot as plt


def reset(gallery_conf, fname):
    """Give each example the site's style, and no figures of the example before."""
    plt.close("all")
    plt.rcdefaults()
    mpl.rcParams.update(mpl.rc_params_from_file(os.environ["MATPLOTLIBRC"], use_default_template=False))
