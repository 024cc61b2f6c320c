//! Never worse: whether a certificate may take the place of another.
