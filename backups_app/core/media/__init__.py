"""Folders of files beside a database: one tar in the same zstd and age pipe, proven file by file.

``tar`` is the format as far as we use it, ``index`` the list of digests at its end, ``walk`` how
folders are read without following a link, ``pack`` the way in, ``unpack`` the way back, and
``tree`` how files are made that nobody can steer.
"""
