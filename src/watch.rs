//! Folders on every symlink chain: `look again`; notify with polling beneath.
