//! One request, as one readable pipeline.
