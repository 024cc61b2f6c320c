//! Every metric: name, help, labels, handle.
