//! `staunch certs`: the inventory as a table.

use super::Exit;

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Carries the command out.
pub fn run(_args: Args) -> Exit {
    Exit::Failed
}
