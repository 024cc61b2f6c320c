//! Where certificates are found on disk: pairs, bundles, folders.
