//! Chains: order, completeness, trust.
