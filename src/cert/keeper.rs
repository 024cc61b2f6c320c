//! Conducts: reads sources again when told to look, and publishes inventories.
