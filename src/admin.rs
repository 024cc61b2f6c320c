//! The admin address: health, metrics, inventory, reload.
