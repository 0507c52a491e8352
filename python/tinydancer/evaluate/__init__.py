"""Evaluation: routers and classifiers compared on files of labelled requests.

Files come in, figures, tables and plots come out.  Called by ``tinydancer evaluate`` and by bench/.
"""
