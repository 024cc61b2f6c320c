//! From bytes to a verified certificate, or to the reason why not.
